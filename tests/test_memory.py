"""What a training step frees and the next one takes must not be fetched anew from the kernel."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import torch
from dbp_mae.memory import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()
torch.set_num_threads(1)
layer = torch.nn.Conv2d(8, 8, 3, padding=1)
images = torch.randn(4, 8, 256, 256)

def step():
    layer(layer(images).relu()).sum().backward()

for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(mode: str) -> int:
    command = [sys.executable, "-c", SCRIPT, mode]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_is_kept() -> None:
    assert page_faults("kept") < 0.1 * page_faults("given back")
