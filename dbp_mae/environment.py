"""Hardware, versions and code, to stand beside every figure that depends on them."""

import hashlib
import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path
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


@cache
def code_sha256(*folders: Path) -> str:
    """Return the SHA-256 of the library's Python files and of those below `folders`, as first found."""
    digest = hashlib.sha256()
    for folder in (Path(__file__).parent, *folders):
        for source in sorted(folder.rglob("*.py")):
            digest.update(source.read_bytes())
    return digest.hexdigest()
