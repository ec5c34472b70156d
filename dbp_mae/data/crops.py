"""Crops for pre-training, each batch a pure function of the seed and the step.

So a run that is resumed, or another variant in a comparison, sees the very same pixels and masks.
"""

from itertools import groupby
from operator import itemgetter

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from dbp_mae.data.batches import Batches, Pair, channels_first
from dbp_mae.data.images import DecodedImages
from dbp_mae.inspection.tiling import pad_to_tile
from dbp_mae.params import PretrainParams

Batch = Pair
"""Crops, uint8, B C H W; and noise, int32, B N, whose order decides which patches are masked.

Mixed precision would round floats, and make many of them equal; these have 24 bits."""

WIDEST = 4 / 3
"""Largest ratio of the sides that a resized crop had in its image."""

Draws = NDArray[np.float64]
"""Two numbers drawn evenly, from 0 to below 1."""


def random_crop(image: np.ndarray, size: int, place: Draws) -> np.ndarray:
    """Cut a square at native scale, H W C; smaller images are padded.

    `place` is where it lies between the top and the bottom, the left and the right.
    """
    image = pad_to_tile(image, size)
    top, left = _corner(image, size, size, place)
    return image[top : top + size, left : left + size]


def resized_crop(
    image: np.ndarray, size: int, scale: tuple[float, float], shape: Draws, place: Draws
) -> np.ndarray:
    """Cut a rectangle that covers a share (in `scale`) of an image, H W C, and resize it to a square.

    `shape` decides the share and the ratio of the sides, `place` is as in `random_crop`. The crop of
    MAE's pre-training (arXiv 2111.06377, table 8), after Inception (arXiv 1409.4842).
    """
    height, width, channels = image.shape
    area = (scale[0] + shape[0] * (scale[1] - scale[0])) * height * width
    ratio = WIDEST ** (2 * shape[1] - 1)
    rows = min(height, max(1, round(np.sqrt(area / ratio))))
    columns = min(width, max(1, round(np.sqrt(area * ratio))))
    top, left = _corner(image, rows, columns, place)
    crop = image[top : top + rows, left : left + columns]
    shrinks = rows * columns > size * size
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return cv2.resize(crop, (size, size), interpolation=interpolation).reshape(size, size, channels)


def _corner(image: np.ndarray, rows: int, columns: int, place: Draws) -> tuple[int, int]:
    """Return the top and left of a window of that size in an image."""
    height, width, _ = image.shape
    return int(place[0] * (height - rows + 1)), int(place[1] * (width - columns + 1))


def mirrored(crop: np.ndarray, upright: bool, pose: Draws) -> np.ndarray:
    """Mirror a crop, H W C, or not, as `pose` says: unless it is upright up and down, and left and right."""
    down, right = (1 if draw < 0.5 else -1 for draw in pose)
    return crop[:: 1 if upright else down, ::right]


class CropBatches(Batches):
    """Item `step` is the batch of that step, or the part of it that one of several processes takes.

    Images are visited in a new random order each epoch.
    """

    def __init__(
        self,
        images: DecodedImages,
        params: PretrainParams,
        seed: int,
        part: int = 0,
        parts: int = 1,
    ) -> None:
        self.images = images
        self.params = params
        self.seed = seed
        assert params.batch % parts == 0, f"a batch of {params.batch} in {parts} parts"
        size = params.batch // parts
        self.part = slice(part * size, (part + 1) * size)

    def __len__(self) -> int:
        return self.params.steps

    def fill(self, threads: int) -> None:
        self.images.fill(threads)

    def __getitem__(self, step: int) -> Batch:
        params, part = self.params, self.part
        rng = np.random.default_rng([self.seed, 0, step])
        draws = rng.random((params.batch, 3, 2))[part]
        noise = rng.random((params.batch, params.patches), dtype=np.float32)[part] * 2**24
        indices = np.repeat(self._image_indices(step), params.crops_per_image)[part]
        crops: list[np.ndarray] = []
        for index, rows in groupby(zip(indices, draws, strict=True), key=itemgetter(0)):
            image = self.images[index]
            crops += [self._crop(image, *row) for _, row in rows]
        return channels_first(crops), torch.from_numpy(noise.astype(np.int32))

    def _crop(self, image: np.ndarray, shape: Draws, place: Draws, pose: Draws) -> np.ndarray:
        params = self.params
        if params.scale:
            crop = resized_crop(image, params.crop, params.scale, shape, place)
        else:
            crop = random_crop(image, params.crop, place)
        return mirrored(crop, self.images.data.upright, pose)

    def _image_indices(self, step: int) -> NDArray[np.int64]:
        images = self.params.batch // self.params.crops_per_image
        visits = np.arange(step * images, (step + 1) * images)
        epochs, positions = np.divmod(visits, len(self.images))
        orders = {
            epoch: np.random.default_rng([self.seed, 1, epoch]).permutation(len(self.images))
            for epoch in np.unique(epochs)
        }
        pairs = zip(epochs, positions, strict=True)
        return np.array([orders[epoch][position] for epoch, position in pairs])
