"""The images of a pre-training: its batches, and the crops that are the same for every seed."""

import math
from dataclasses import dataclass
from typing import Self

import pandas as pd

from dbp_mae.data.crops import Batch, CropBatches
from dbp_mae.data.images import MEMORY_BUDGET, DecodedImages, pooled_statistics
from dbp_mae.errors import UserError
from dbp_mae.params import DataParams, PretrainParams

FIXED_CROPS = 256
"""The least that is validated on, and that the whitening of patches is found from. Each image gives as
many, so of fewer images there may be up to 510: two of each of 255."""


@dataclass(frozen=True)
class PretrainingImages:
    """The images of a validated manifest that a pre-training sees."""

    training: DecodedImages
    validation: DecodedImages
    channels: int
    mean: tuple[float, ...]
    """Of the training images by channel, on the scale of 0 to 1."""
    std: tuple[float, ...]

    @classmethod
    def of(cls, frame: pd.DataFrame, data: DataParams, devices: int = 1) -> Self:
        """Take the splits train and val of `frame`; each device's process keeps images of its own.

        Raises:
            UserError: one of them is empty.
        """
        training = _images(frame, data, "train", devices)
        validation = _images(frame, data, "val", devices)
        mean, std = pooled_statistics(frame[frame["split"] == "train"])
        return cls(training, validation, data.channels, mean, std)

    def batches(self, params: PretrainParams, part: int = 0, parts: int = 1) -> CropBatches:
        """Return the batches by step, as `params.seed` decides, or a process's part of each."""
        return CropBatches(self.training, params, params.seed, part, parts)


def fixed_crops(images: DecodedImages, params: PretrainParams) -> Batch:
    """Return crops of images with masks that are the same for every seed."""
    used = min(len(images), FIXED_CROPS)
    each = math.ceil(FIXED_CROPS / used)
    fixed = params.model_copy(update={"batch": used * each, "crops_per_image": each})
    return CropBatches(images, fixed, seed=0)[0]


def _images(frame: pd.DataFrame, data: DataParams, split: str, devices: int) -> DecodedImages:
    rows = frame[frame["split"] == split]
    if rows.empty:
        raise UserError(
            f"No image is in the split {split}: see data/quarantine.csv, or give it a larger share."
        )
    return DecodedImages(rows, data, MEMORY_BUDGET // devices)
