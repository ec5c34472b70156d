"""Which images a training has seen, and which others show parts that it has seen."""

from pathlib import Path

import pandas as pd

from dbp_mae.errors import UserError
from dbp_mae.files import write_text

IDENTITY = ["sha256", "group"]
"""What tells an image, and its part, from others."""


def part_is_named(images: pd.DataFrame) -> pd.Series:
    """Tell of each row of a manifest whether its part is named, or its group the image's own name."""
    own = [
        path == group or path.endswith(f"/{group}")
        for path, group in zip(images["path"], images["group"], strict=True)
    ]
    return ~pd.Series(own, index=images.index, dtype=bool)


def write_seen(path: Path, frame: pd.DataFrame) -> None:
    """List what a training on `frame` (a validated manifest) sees: its splits train and val."""
    seen = frame[frame["split"].isin(["train", "val"])]
    # In another folder the same file name is another image.
    groups = seen["group"].where(part_is_named(seen), "")
    write_text(path, seen.assign(group=groups)[IDENTITY].to_csv(index=False))


def read_seen(path: Path) -> pd.DataFrame:
    """Read such a list.

    Raises:
        FileNotFoundError: it is missing.
        UserError: it is not one.
    """
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False, usecols=IDENTITY)
    except ValueError:
        raise UserError(
            f"{path} does not list images and their parts (sha256, group): run the stage pretrain anew."
        ) from None


def is_seen(images: pd.DataFrame, seen: pd.DataFrame) -> pd.Series:
    """Tell of each row of a manifest whether its image, or another of its part, is in the list.

    A part is known by its name in the list, and by any of its images: another source may name it otherwise.
    """
    listed = images["sha256"].isin(seen["sha256"])
    parts = (set(seen["group"]) - {""}) | set(images["group"][listed])
    return listed | images["group"].isin(parts)
