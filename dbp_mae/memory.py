"""Memory that a step frees stays with the process for the next step."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Names of glibc's malloc.h."""
NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Keep glibc from giving memory back to the kernel, which would hand it out again page by page.

    On a CPU those page faults took 4 % of a pre-training step and 13 % of a fine-tuning step
    (benchmarks/notes.md). Under another C library nothing changes.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option:
        set_option(M_MMAP_MAX, 0)  # large blocks come from the heap as well
        set_option(M_TRIM_THRESHOLD, NEVER)
