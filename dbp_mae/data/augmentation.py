"""Augmentation of labelled tiles; the only place that uses albumentations (2.0.8 is its last MIT release)."""

import albumentations as A
import numpy as np

from dbp_mae.data.labels import IGNORED


def training_augmentation(seed: int) -> A.Compose:
    """Return what varies on a line: pose, light, focus and noise, not the part itself."""
    return A.Compose(
        [
            A.HorizontalFlip(p=0.5),
            A.VerticalFlip(p=0.5),
            A.Affine(
                scale=(0.85, 1.15),
                rotate=(-15, 15),
                p=0.5,
                fill=0,
                fill_mask=IGNORED,
                border_mode=0,
            ),
            A.RandomBrightnessContrast(brightness_limit=0.2, contrast_limit=0.2, p=0.7),
            A.RandomGamma(gamma_limit=(80, 125), p=0.3),
            A.GaussianBlur(blur_limit=(3, 5), p=0.2),
            A.GaussNoise(std_range=(0.01, 0.04), p=0.3),
        ],
        seed=seed,
    )


def augment(
    augmentation: A.Compose, tile: np.ndarray, mask: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Augment a tile, uint8, H W C, and its mask, H W, as `seed` decides."""
    augmentation.set_random_seed(seed)
    result = augmentation(image=tile, mask=mask)
    return result["image"], result["mask"]
