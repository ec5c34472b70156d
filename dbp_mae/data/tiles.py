"""Labelled tiles for fine-tuning, each batch a pure function of the seed and the step."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dbp_mae.data.augmentation import augment, training_augmentation
from dbp_mae.data.batches import Batches, Pair, channels_first
from dbp_mae.data.images import DecodedImages, DecodedMasks
from dbp_mae.data.labels import IGNORED
from dbp_mae.inspection.tiling import cut_tiles, pad_to_tile
from dbp_mae.params import DataParams, FinetuneParams

TileBatch = Pair
"""Tiles, uint8, B C H W; and their masks, int64, B H W."""


class LabelledImages:
    """The labelled images of a manifest's rows with their index masks (uint8, H W)."""

    def __init__(self, frame: pd.DataFrame, data: DataParams, folder: Path) -> None:
        rows = frame[frame["label_state"] == "labelled"]
        self.images = DecodedImages(rows, data)
        self.masks = DecodedMasks(rows, folder)
        pixels = np.stack(rows["pixels"].to_list()) if len(rows) else np.zeros((0, 1))
        self.present = pixels[:, 1:] > 0  # image, class

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.images[index], self.masks[index]

    def fill(self, threads: int) -> None:
        """Decode now what is kept; processes forked later share it."""
        self.images.fill(threads)
        self.masks.fill(threads)


class TileBatches(Batches):
    """Item `step` is the batch of that step.

    A share of the tiles is centred near a pixel of a class drawn evenly from those that occur, so that
    rare classes and tiny defects are seen as often as common ones.
    """

    def __init__(self, labelled: LabelledImages, params: FinetuneParams) -> None:
        self.labelled = labelled
        self.params = params
        self.augmentation = training_augmentation(labelled.images.data.upright)
        self.occurring = np.flatnonzero(labelled.present.any(axis=0)) + 1

    def __len__(self) -> int:
        return self.params.steps

    def fill(self, threads: int) -> None:
        self.labelled.fill(threads)

    def __getitem__(self, step: int) -> TileBatch:
        rng = np.random.default_rng([self.params.seed, step])
        pairs = [self._tile(rng) for _ in range(self.params.batch)]
        tiles, masks = zip(*pairs, strict=True)
        return channels_first(tiles), _stacked(masks)

    def _tile(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        size = self.params.tile
        if len(self.occurring) and rng.random() < self.params.foreground_share:
            wanted = int(rng.choice(self.occurring))
            index = int(rng.choice(np.flatnonzero(self.labelled.present[:, wanted - 1])))
            image, mask = self._padded(index)
            top, left = near_pixel(mask == wanted, size, rng)
        else:
            image, mask = self._padded(int(rng.integers(len(self.labelled))))
            top = int(rng.integers(mask.shape[0] - size + 1))
            left = int(rng.integers(mask.shape[1] - size + 1))
        window = np.s_[top : top + size, left : left + size]
        return augment(self.augmentation, image[window], mask[window], int(rng.integers(2**31)))

    def _padded(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        image, mask = self.labelled[index]
        size = self.params.tile
        return pad_to_tile(image, size), pad_mask(mask, size)


def near_pixel(wanted: np.ndarray, size: int, rng: np.random.Generator) -> tuple[int, int]:
    """Return top and left of a tile inside the image that holds a random pixel of `wanted`, H W."""
    height, width = wanted.shape
    pixels = np.flatnonzero(wanted)  # twenty times as fast as np.nonzero
    row, column = divmod(int(rng.choice(pixels)), width)
    return _start(row, size, height, rng), _start(column, size, width, rng)


def _start(position: int, size: int, length: int, rng: np.random.Generator) -> int:
    low, high = max(0, position - size + 1), min(position, length - size)
    return int(rng.integers(low, high + 1))


def pad_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """Pad a mask, H W, on the lower right to at least `size`; the padding is ignored."""
    height, width = mask.shape
    edges = ((0, max(0, size - height)), (0, max(0, size - width)))
    return np.pad(mask, edges, constant_values=IGNORED)


class ValidationTiles(Batches):
    """Item `index` is an image cut into tiles that cover it, as one batch; each pixel counts once."""

    def __init__(self, labelled: LabelledImages, size: int) -> None:
        self.labelled = labelled
        self.size = size

    def __len__(self) -> int:
        return len(self.labelled)

    def fill(self, threads: int) -> None:
        self.labelled.fill(threads)

    def __getitem__(self, index: int) -> TileBatch:
        image, mask = self.labelled[index]
        tiles, origins = cut_tiles(image, self.size, overlap=0)
        padded = pad_mask(mask, self.size)
        masks = []
        for top, left in origins:
            tile = padded[top : top + self.size, left : left + self.size]
            masks.append(tile.copy())
            tile[:] = IGNORED  # the last tile of a row or column reaches back into the one before
        return channels_first(tiles), _stacked(masks)


def _stacked(masks: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(masks, dtype=np.int64))


def sample_tiles(frame: pd.DataFrame, data: DataParams, size: int, count: int = 10) -> np.ndarray:
    """Return `count` real tiles, uint8, N T T C, each from the middle of a validation image.

    Where the images are fewer, they come again from the first on: a check in batches needs so many.
    """
    rows = frame[frame["split"] == "val"]
    images = DecodedImages(rows.iloc[:: max(1, len(rows) // count)], data)
    middles = []
    for index in range(count):
        tiles, _ = cut_tiles(images[index % len(images)], size, overlap=0)
        middles.append(tiles[len(tiles) // 2])
    return np.stack(middles)
