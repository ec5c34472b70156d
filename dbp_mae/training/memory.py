"""Memory that a step frees stays with the process for the next step."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Options of glibc's mallopt, as malloc.h numbers them."""
LARGEST_BLOCK = 32 * 2**20
"""Bytes, the most that glibc allows: larger blocks go back to the kernel as ever."""
NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Keep glibc from giving memory back to the kernel, which would hand it out again page by page.

    On a CPU those page faults took some 7 % of a pre-training step and 9 % of a fine-tuning step
    (benchmarks/notes.md). Under another C library nothing changes.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option:
        set_option(M_MMAP_THRESHOLD, LARGEST_BLOCK)
        set_option(M_TRIM_THRESHOLD, NEVER)
