"""Augmentation of labelled tiles; the only place that uses albumentations (2.0.8 is its last MIT release)."""

import os

import numpy as np

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else the import asks the internet
import albumentations as A


def training_augmentation(upright: bool) -> A.Compose:
    """Return what varies on a line: pose, light, focus and noise, not the part itself.

    Where up is up in all images (`upright`), they are mirrored left and right alone. Mild, for the
    trainings are short: stronger augmentation slowed them more than it helped.
    """
    return A.Compose(
        [
            A.HorizontalFlip(p=0.5) if upright else A.D4(p=1.0),
            A.RandomBrightnessContrast(brightness_limit=0.15, contrast_limit=0.15, p=0.5),
            A.GaussianBlur(blur_limit=(3, 3), p=0.1),
            A.GaussNoise(std_range=(0.01, 0.03), p=0.1),
        ]
    )


def augment(
    augmentation: A.Compose, tile: np.ndarray, mask: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Augment a tile, uint8, H W C, and its mask, H W, as `seed` decides."""
    seeds = np.random.SeedSequence(seed).generate_state(len(augmentation.transforms))
    # One seed for all, as Compose would set it, makes one draw decide for all which of them act.
    for transform, own in zip(augmentation.transforms, seeds, strict=True):
        transform.set_random_seed(int(own))
    result = augmentation(image=tile, mask=mask)
    return result["image"], result["mask"]
