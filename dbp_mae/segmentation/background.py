"""How far a class must be ahead of the background: one offset, chosen on validation images.

A training may see tiles with objects far more often than a line does, and its loss counts them double:
so where objects are rare, the network calls too many pixels one.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dbp_mae.data.labels import IGNORED
from dbp_mae.segmentation.metrics import mean_iou

OFFSETS = np.linspace(-2, 10, 49)
"""Candidates, added to the logit of the background."""


def lead_codes(logits: Tensor) -> Tensor:
    """Tell each pixel's likeliest class but the background, and how many of OFFSETS leave it ahead of that.

    Args:
        logits: B K+1 H W, background first.

    Returns:
        B H W, int64: the class from 0, times len(OFFSETS) + 1, plus that number.
    """
    best, foreground = logits[:, 1:].float().max(dim=1)
    offsets = torch.tensor(OFFSETS, dtype=best.dtype, device=best.device)
    ahead = torch.bucketize(best - logits[:, 0].float(), offsets)
    return foreground * (len(OFFSETS) + 1) + ahead


def count_leads(
    codes: NDArray[np.integer], target: NDArray[np.integer], classes: int
) -> NDArray[np.int64]:
    """Count pixels by labelled class, likeliest class and the number of OFFSETS that leave it ahead.

    Args:
        codes: those of `lead_codes`; any shape.
        target: labelled class of each pixel, or 255; the same shape.
        classes: number of classes K, without background.

    Returns:
        (K+1, K, len(OFFSETS) + 1) counts, which add up over images.
    """
    assert codes.shape == target.shape, f"{codes.shape} against {target.shape}"
    valid = target != IGNORED
    shape = (classes + 1, classes, len(OFFSETS) + 1)
    cells = target[valid].astype(np.int64) * (shape[1] * shape[2]) + codes[valid]
    return np.bincount(cells, minlength=math.prod(shape)).reshape(shape)


def confusion_by_offset(counts: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the confusion matrix, labelled class by predicted class, that each of OFFSETS would give.

    Args:
        counts: those of `count_leads`.

    Returns:
        (len(OFFSETS), K+1, K+1) counts.
    """
    foreground = counts.sum(axis=-1, keepdims=True) - counts.cumsum(axis=-1)[..., :-1]
    background = counts.sum(axis=(1, 2))[:, None] - foreground.sum(axis=1)
    return np.concatenate([background[:, None], foreground], axis=1).transpose(2, 0, 1)


def best_offset(confusions: NDArray[np.integer]) -> int:
    """Return which of OFFSETS has the highest mean IoU; of equals that nearest to 0.

    Args:
        confusions: (len(OFFSETS), K+1, K+1) counts.
    """
    nearest = np.argsort(np.abs(OFFSETS), kind="stable")
    quality = np.nan_to_num(mean_iou(confusions))
    return int(nearest[quality[nearest].argmax()])
