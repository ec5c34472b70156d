"""Statistics of an image, and how far those of recent images are from the training images'."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

STATISTICS = ("mean", "std", "sharpness", "saturated")
REFERENCE_RANKS = np.linspace(0, 1, 21)
"""The ranks of the quantiles that a model card keeps of each statistic."""

SHIFTED = 0.25
LEAST = 50
"""Fewer images tell little: of 11 not even black ones pass the threshold, and of 20 a shift by one standard
deviation does in a tenth of the cases; of 50 in nine tenths, with 100 training images or more (simulated)."""
CHI_SQUARE_99 = 21.67
"""99 % quantile of the chi-squared distribution with 9 degrees of freedom (ten bins)."""


@dataclass(frozen=True)
class Drift:
    """How far one statistic has moved."""

    statistic: str
    psi: float
    """Population stability index: 0 where nothing moved."""
    threshold: float
    drifted: bool


def image_statistics(image: np.ndarray) -> dict[str, float]:
    """Measure a decoded image (uint8 H W C).

    Returns:
        mean and std of all values on a scale of 0 to 1; sharpness, the variance of the Laplacian of
        the luminance (on the scale of 0 to 255); saturated, the share of values that are 0 or 255.
    """
    mean, std = cv2.meanStdDev(image.reshape(image.shape[0], -1))
    grey = image[..., 0] if image.shape[2] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    _, edges = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S))
    return {
        "mean": mean.item() / 255,
        "std": std.item() / 255,
        "sharpness": edges.item() ** 2,
        "saturated": float(np.mean((image == 0) | (image == 255))),
    }


def reference_quantiles(statistics: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Return the 21 quantiles (0, 5, ... 100 %) of each statistic over the training images."""
    return {
        name: np.quantile([row[name] for row in statistics], REFERENCE_RANKS).tolist()
        for name in STATISTICS
    }


def drift(
    observed: Sequence[Mapping[str, float]],
    reference: Mapping[str, Sequence[float]],
    reference_images: int,
) -> list[Drift]:
    """Compare the statistics of recent images (at least one) with those of the training images.

    The measure is the population stability index over the reference's deciles,
    sum((o - e) * ln(o / e)) of the observed and the expected shares, flagged from 0.25 on, the
    usual mark of a shift that calls for action (Siddiqi, Credit Risk Scorecards, 2006). It measures
    the size of a shift, where a Kolmogorov-Smirnov test finds any shift significant once enough
    images have passed. Where nothing has shifted, the index is distributed about as
    chi-squared(9) * (1 / observed images + 1 / reference images) (Yurdakul, Statistical Properties
    of Population Stability Index, 2018); with few images the threshold is the 99 % quantile of
    that, or else chance alone would raise it.

    Args:
        observed: one `image_statistics` an image.
        reference: `reference` of the model card.
        reference_images: `training_images` of the model card.
    """
    chance = CHI_SQUARE_99 * (1 / len(observed) + 1 / reference_images)
    threshold = max(SHIFTED, chance)
    result = []
    for name in STATISTICS:
        psi = _stability_index(np.array([row[name] for row in observed]), reference[name])
        result.append(Drift(name, psi, threshold, drifted=psi >= threshold))
    return result


def _stability_index(observed: np.ndarray, quantiles: Sequence[float]) -> float:
    """Return the index over bins that end at the deciles; equal deciles share one bin."""
    ends = np.unique(quantiles[2:-1:2])
    below = REFERENCE_RANKS[np.searchsorted(quantiles, ends, side="right") - 1]
    expected = np.diff(below, prepend=0, append=1)
    counts = np.bincount(np.searchsorted(ends, observed, side="left"), minlength=len(expected))
    # Half an image more in each bin keeps the logarithm finite where nothing was seen or expected.
    shares = (counts + 0.5) / (len(observed) + len(counts) / 2)
    expected = (expected + 0.5 / len(observed)) / (1 + len(counts) / 2 / len(observed))
    return float(np.sum((shares - expected) * np.log(shares / expected)))
