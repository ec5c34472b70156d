"""The file that a benchmark writes its results to."""

import json
import re
from pathlib import Path
from typing import Any

from dbp_mae.environment import device_name, environment
from dbp_mae.files import write_text

RESULTS = Path(__file__).parent / "results"


def write_results(
    name: str, headline: dict[str, Any], rows: list[dict[str, Any]], **details: Any
) -> Path:
    """Write benchmarks/results/<name>-<device>.json and return its path."""
    device = re.sub(r"[^a-z0-9]+", "-", device_name().lower()).strip("-")
    path = RESULTS / f"{name}-{device}.json"
    content = {"headline": headline, "environment": environment(), "rows": rows, **details}
    write_text(path, json.dumps(content, indent=2) + "\n")
    return path
