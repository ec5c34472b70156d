"""Where and on what a benchmark was measured, and its file of results."""

import json
import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from dbp_mae.files import write_text

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "timm", "numpy")


def device_name() -> str:
    """Return the accelerator's name, or the processor's."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return str(torch.cpu.get_capabilities().get("cpu_name") or platform.processor())


def environment() -> dict[str, Any]:
    """Return hardware and versions, to stand beside every figure."""
    return {
        "device": device_name(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def write_results(name: str, headline: dict[str, float], rows: list[dict[str, Any]]) -> Path:
    """Write benchmarks/results/<name>-<device>.json and return its path."""
    device = re.sub(r"[^a-z0-9]+", "-", device_name().lower()).strip("-")
    path = RESULTS / f"{name}-{device}.json"
    content = {"headline": headline, "environment": environment(), "rows": rows}
    write_text(path, json.dumps(content, indent=2) + "\n")
    return path
