"""Where and on what a benchmark was measured, and its file of results."""

import json
import os
import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from dbp_mae.files import write_text

RESULTS = Path(os.environ.get("BENCHMARK_RESULTS", Path(__file__).parent / "results"))
"""Where the files of results go; trials at toy size name another folder."""
PACKAGES = ("torch", "timm", "numpy")


def device_name() -> str:
    """Return the accelerator's name, or the processor's."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return str(torch.cpu.get_capabilities().get("cpu_name") or platform.processor())


def device_slug() -> str:
    """Return the device's name as it stands in the names of files."""
    return re.sub(r"[^a-z0-9]+", "-", device_name().lower()).strip("-")


def environment() -> dict[str, Any]:
    """Return hardware and versions, to stand beside every figure."""
    return {
        "device": device_name(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def write_results(name: str, headline: dict[str, float], rows: list[dict[str, Any]]) -> Path:
    """Write RESULTS/<name>-<device>.json and return its path."""
    path = RESULTS / f"{name}-{device_slug()}.json"
    content = {"headline": headline, "environment": environment(), "rows": rows}
    write_text(path, json.dumps(content, indent=2) + "\n")
    return path
