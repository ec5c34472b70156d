"""Decoded images of a manifest, kept in memory as far as a budget reaches."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from dbp_mae.inspection.images import read_image
from dbp_mae.params import DataParams

MEMORY_BUDGET = 4 * 2**30
"""Bytes of decoded images that one process keeps; the rest is decoded at each use."""


class DecodedImages:
    """The images of a manifest's rows, decoded at first use: uint8, H W C."""

    def __init__(self, frame: pd.DataFrame, data: DataParams, budget: int = MEMORY_BUDGET) -> None:
        self.paths = [data.source / path for path in frame["path"]]
        self.data = data
        self.budget = budget
        self.kept: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        if index in self.kept:
            return self.kept[index]
        image = read_image(self.paths[index], self.data.channels, self.data.white_level)
        if image.nbytes <= self.budget:
            self.kept[index] = image
            self.budget -= image.nbytes
        return image


def pooled_statistics(frame: pd.DataFrame) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation by channel over all pixels of all rows, on the scale 0 to 1."""
    weight = (frame["width"] * frame["height"]).to_numpy(dtype=float)[:, None]
    weight /= weight.sum()
    means = np.stack(frame["channel_mean"].to_list())
    stds = np.stack(frame["channel_std"].to_list())
    mean = (weight * means).sum(axis=0)
    variance = (weight * (stds**2 + means**2)).sum(axis=0) - mean**2
    return tuple(mean.tolist()), tuple(np.sqrt(variance).tolist())


def read_mask(path: Path) -> np.ndarray:
    """Read an index mask that ingest wrote: uint8, H W, 0 background, 255 ignored."""
    with Image.open(path, formats=["PNG"]) as mask:
        return np.asarray(mask)
