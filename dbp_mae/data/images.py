"""Decoded images and masks of a manifest, kept in memory as far as a budget reaches."""

from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from dbp_mae.errors import UserError
from dbp_mae.inspection.images import ImageError, read_image
from dbp_mae.params import DataParams

MEMORY_BUDGET = 4 * 2**30
"""Bytes of decoded images of a split that are kept; the rest is decoded at each use."""
MASK_BUDGET = MEMORY_BUDGET // 4
"""The same of decoded masks."""

LEAST_STD = 1 / 255
"""A channel that deviates by less than one grey level counts as deviating by one."""


class DataFileError(UserError):
    """An image or mask that could be read when it was ingested, and no longer can."""

    def __init__(self, message: str) -> None:
        # torch's DataLoader raises a worker's exception again with its printed trace for a message;
        # the sentence follows the class's name in the last line.
        super().__init__(message.strip().rpartition(f"{type(self).__name__}: ")[2])


class Decoded(ABC):
    """Arrays that are decoded at first use, or before.

    Args:
        paths: of the files.
        budget: bytes of arrays that are kept.
    """

    def __init__(self, paths: np.ndarray, budget: int) -> None:
        self.paths = paths  # as text: a million Path objects would take 1 GB
        self.budget = budget
        self.kept: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        if index in self.kept:
            return self.kept[index]
        array = self.decode(index)
        self._keep(index, array)
        return array

    def fill(self, threads: int) -> None:
        """Decode what the budget has room for; processes forked later share it, and keep no more."""
        if not self.budget:
            return
        missing = [index for index in range(len(self)) if index not in self.kept]
        with ThreadPoolExecutor(threads) as pool:
            for start in range(0, len(missing), threads):
                some = missing[start : start + threads]
                arrays = list(pool.map(self.decode, some))
                if not all(map(self._keep, some, arrays)):
                    break
        self.budget = 0

    def _keep(self, index: int, array: np.ndarray) -> bool:
        """Keep an array if there is room; return whether there was."""
        fits = array.nbytes <= self.budget
        if fits:
            self.kept[index] = array
            self.budget -= array.nbytes
        return fits

    @abstractmethod
    def decode(self, index: int) -> np.ndarray:
        """Read a file."""


class DecodedImages(Decoded):
    """The images of a manifest's rows: uint8, H W C.

    Raises:
        DataFileError: at use, an image is missing or broken.
    """

    def __init__(self, frame: pd.DataFrame, data: DataParams, budget: int = MEMORY_BUDGET) -> None:
        super().__init__(frame["path"].array, budget)
        self.data = data

    def decode(self, index: int) -> np.ndarray:
        """Read an image."""
        try:
            path = self.data.source / self.paths[index]
            return read_image(path, self.data.channels, self.data.white_level)
        except ImageError as error:
            raise DataFileError(f"{error} Restore it, or run `dvc repro ingest` again.") from None


class DecodedMasks(Decoded):
    """The index masks of a manifest's labelled rows: uint8, H W, 0 background, 255 ignored.

    Args:
        folder: which the manifest's mask paths start from.

    Raises:
        DataFileError: at use, a mask is missing or broken.
    """

    def __init__(self, frame: pd.DataFrame, folder: Path, budget: int = MASK_BUDGET) -> None:
        super().__init__(frame["mask_path"].array, budget)
        self.folder = folder

    def decode(self, index: int) -> np.ndarray:
        """Read a mask."""
        return read_mask(self.folder / self.paths[index])


def pooled_statistics(frame: pd.DataFrame) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation by channel over all pixels of all rows, on the scale 0 to 1.

    The standard deviation is at least LEAST_STD, for pixels are divided by it.
    """
    weight = (frame["width"] * frame["height"]).to_numpy(dtype=float)[:, None]
    weight /= weight.sum()
    means = np.stack(frame["channel_mean"].to_list())
    stds = np.stack(frame["channel_std"].to_list())
    mean = (weight * means).sum(axis=0)
    variance = (weight * (stds**2 + means**2)).sum(axis=0) - mean**2
    std = np.sqrt(np.maximum(variance, LEAST_STD**2))  # rounding can make a variance negative
    return tuple(mean.tolist()), tuple(std.tolist())


def read_mask(path: Path) -> np.ndarray:
    """Read an index mask that ingest wrote: uint8, H W, 0 background, 255 ignored.

    Raises:
        DataFileError: the mask is missing or broken.
    """
    try:
        return read_image(path, channels=1)[..., 0]
    except ImageError as error:
        raise DataFileError(f"{error} Run `dvc repro --force ingest` to write it again.") from None
