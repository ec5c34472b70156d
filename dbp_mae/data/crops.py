"""Crops for pre-training, each batch a pure function of the seed and the step.

So a run that is resumed, or another variant in a comparison, sees the very same pixels and masks.
"""

import cv2
import numpy as np
import torch

from dbp_mae.data.batches import Batches, Pair, channels_first
from dbp_mae.data.images import DecodedImages
from dbp_mae.inspection.tiling import pad_to_tile
from dbp_mae.params import PretrainParams

Batch = Pair
"""Crops, uint8, B C H W; and noise, float32, B N, whose order decides which patches are masked."""


WIDEST = 4 / 3
"""Largest ratio of the sides that a resized crop had in its image."""


def random_crop(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Cut a square at native scale, H W C; smaller images are padded."""
    image = pad_to_tile(image, size)
    top = rng.integers(image.shape[0] - size + 1)
    left = rng.integers(image.shape[1] - size + 1)
    return image[top : top + size, left : left + size]


def resized_crop(
    image: np.ndarray, size: int, scale: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """Cut a rectangle that covers a random share (`scale`) of an image, H W C, and resize it to a square.

    The crop of MAE's pre-training (arXiv 2111.06377, table 8), after Inception (arXiv 1409.4842).
    """
    height, width, channels = image.shape
    area = rng.uniform(*scale) * height * width
    ratio = np.exp(rng.uniform(-np.log(WIDEST), np.log(WIDEST)))
    rows = min(height, max(1, round(np.sqrt(area / ratio))))
    columns = min(width, max(1, round(np.sqrt(area * ratio))))
    top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
    crop = image[top : top + rows, left : left + columns]
    shrinks = rows * columns > size * size
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return cv2.resize(crop, (size, size), interpolation=interpolation).reshape(size, size, channels)


def mirrored(crop: np.ndarray, upright: bool, rng: np.random.Generator) -> np.ndarray:
    """Mirror a crop, H W C, at random: left and right, and unless it is upright, up and down."""
    down, right = rng.integers(2, size=2) * 2 - 1
    return crop[:: 1 if upright else down, ::right]


class CropBatches(Batches):
    """Item `step` is the batch of that step; images are visited in a new random order each epoch."""

    def __init__(self, images: DecodedImages, params: PretrainParams, seed: int) -> None:
        self.images = images
        self.params = params
        self.seed = seed

    def __len__(self) -> int:
        return self.params.steps

    def fill(self, threads: int) -> None:
        self.images.fill(threads)

    def __getitem__(self, step: int) -> Batch:
        params = self.params
        rng = np.random.default_rng([self.seed, step])
        crops = [
            mirrored(self._crop(index, rng), self.images.data.upright, rng)
            for index in self._image_indices(step)
            for _ in range(params.crops_per_image)
        ]
        patches = (params.crop // params.patch) ** 2
        noise = rng.random((params.batch, patches), dtype=np.float32)
        return channels_first(crops), torch.from_numpy(noise)

    def _crop(self, index: int, rng: np.random.Generator) -> np.ndarray:
        params = self.params
        if params.scale:
            return resized_crop(self.images[index], params.crop, params.scale, rng)
        return random_crop(self.images[index], params.crop, rng)

    def _image_indices(self, step: int) -> list[int]:
        images = self.params.batch // self.params.crops_per_image
        visits = np.arange(step * images, (step + 1) * images)
        epochs, positions = np.divmod(visits, len(self.images))
        orders = {
            epoch: np.random.default_rng([self.seed, 1, epoch]).permutation(len(self.images))
            for epoch in np.unique(epochs)
        }
        return [
            int(orders[epoch][position]) for epoch, position in zip(epochs, positions, strict=True)
        ]
