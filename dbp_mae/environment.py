"""Hardware and versions, to stand beside every figure that depends on them."""

import platform
from importlib.metadata import version
from typing import Any

import torch

PACKAGES = ("torch", "timm", "numpy")


def device_name() -> str:
    """Return the accelerator's name, or the processor's."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return str(torch.cpu.get_capabilities().get("cpu_name") or platform.processor())


def environment() -> dict[str, Any]:
    """Return the device, its threads, and the versions of what computes on it."""
    return {
        "device": device_name(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }
