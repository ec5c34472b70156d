"""The file that a benchmark writes its results to."""

import json
import os
import re
from pathlib import Path
from typing import Any

from dbp_mae.environment import device_name, environment
from dbp_mae.files import write_text

RESULTS = Path(os.environ.get("BENCHMARK_RESULTS", Path(__file__).parent / "results"))
"""Where the files of results go; trials at toy size name another folder."""


def device_slug() -> str:
    """Return the device's name as it stands in the names of files."""
    return re.sub(r"[^a-z0-9]+", "-", device_name().lower()).strip("-")


def write_results(
    name: str, headline: dict[str, Any], rows: list[dict[str, Any]], **details: Any
) -> Path:
    """Write RESULTS/<name>-<device>.json and return its path."""
    path = RESULTS / f"{name}-{device_slug()}.json"
    content = {"headline": headline, "environment": environment(), "rows": rows, **details}
    write_text(path, json.dumps(content, indent=2) + "\n")
    return path
