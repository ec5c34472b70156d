"""Which images a training has seen, and which others show parts that it has seen."""

from pathlib import Path

import pandas as pd

from dbp_mae.files import write_text

IDENTITY = ["sha256", "group"]
"""What tells an image, and its part, from others."""


def write_seen(path: Path, frame: pd.DataFrame) -> None:
    """List what a training on `frame` (a validated manifest) sees: its splits train and val."""
    seen = frame.loc[frame["split"].isin(["train", "val"]), IDENTITY]
    write_text(path, seen.to_csv(index=False))


def read_seen(path: Path) -> pd.DataFrame:
    """Read such a list.

    Raises:
        FileNotFoundError: it is missing.
        ValueError: it is not one.
    """
    return pd.read_csv(path, dtype=str, keep_default_na=False, usecols=IDENTITY)


def is_seen(images: pd.DataFrame, seen: pd.DataFrame) -> pd.Series:
    """Tell of each row of a manifest whether its image or its part is in the list."""
    return images["sha256"].isin(seen["sha256"]) | images["group"].isin(seen["group"])
