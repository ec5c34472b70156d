"""The data that the variants are compared on."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd


@dataclass(frozen=True)
class Subject:
    """A validated manifest with the folder of its masks."""

    manifest: Path
    """Read as `frame`."""
    frame: pd.DataFrame
    folder: Path
    """Which the manifest's mask paths start from."""
