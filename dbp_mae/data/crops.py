"""Crops for pre-training, each batch a pure function of the seed and the step.

So a run that is resumed, or another variant in a comparison, sees the very same pixels and masks.
"""

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dbp_mae.data.images import DecodedImages
from dbp_mae.inspection.tiling import pad_to_tile
from dbp_mae.params import PretrainParams

Batch = tuple[Tensor, Tensor]
"""Crops, uint8, B C H W; and noise, float32, B N, whose order decides which patches are masked."""


def random_crop(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Cut a square at native scale, H W C, mirrored at random; smaller images are padded."""
    image = pad_to_tile(image, size)
    top = rng.integers(image.shape[0] - size + 1)
    left = rng.integers(image.shape[1] - size + 1)
    crop = image[top : top + size, left : left + size]
    flip = rng.integers(2, size=2) * 2 - 1
    return crop[:: flip[0], :: flip[1]]


class CropBatches(Dataset[Batch]):
    """Item `step` is the batch of that step; images are visited in a new random order each epoch."""

    def __init__(self, images: DecodedImages, params: PretrainParams, seed: int) -> None:
        self.images = images
        self.params = params
        self.seed = seed

    def __len__(self) -> int:
        return self.params.steps

    def __getitem__(self, step: int) -> Batch:
        params = self.params
        rng = np.random.default_rng([self.seed, step])
        crops = [
            random_crop(self.images[index], params.crop, rng)
            for index in self._image_indices(step)
            for _ in range(params.crops_per_image)
        ]
        patches = (params.crop // params.patch) ** 2
        noise = rng.random((params.batch, patches), dtype=np.float32)
        pixels = np.ascontiguousarray(np.stack(crops).transpose(0, 3, 1, 2))
        return torch.from_numpy(pixels), torch.from_numpy(noise)

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
