"""The offset of the background: counted as if it were added, and chosen where it helps."""

import numpy as np
import torch

from dbp_mae.segmentation.background import (
    OFFSETS,
    best_offset,
    confusion_by_offset,
    count_leads,
    lead_codes,
)
from dbp_mae.segmentation.metrics import confusion_matrix, mean_iou

CLASSES = 3


def test_counts_are_those_of_logits_with_the_offset_added() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(3, CLASSES + 1, 20, 20, generator=generator)
    target = torch.randint(CLASSES + 1, (3, 20, 20), generator=generator)
    target[0, :5] = 255
    parts = zip(lead_codes(logits).numpy(), target.numpy(), strict=True)  # counts add up
    counted = confusion_by_offset(sum(count_leads(*part, CLASSES) for part in parts))
    assert len(counted) == len(OFFSETS)
    for offset, confusion in zip(OFFSETS, counted, strict=True):
        shifted = logits.clone()
        shifted[:, 0] += offset
        predicted = shifted.argmax(dim=1)
        expected = confusion_matrix(predicted.numpy(), target.numpy(), CLASSES)
        np.testing.assert_array_equal(confusion, expected)


def test_the_offset_takes_back_what_a_network_calls_an_object_too_readily() -> None:
    """Logits of a perfect classifier of two Gaussians, all moved to the object's side by 3."""
    random = np.random.default_rng(0)
    target = (random.random((1, 200, 200)) < 0.02).astype(np.int64)
    lead = torch.tensor(random.normal(np.where(target, 2.0, -2.0), 1.0) * 4 + 3)
    logits = torch.stack([torch.zeros_like(lead), lead], dim=1)
    counted = confusion_by_offset(count_leads(lead_codes(logits).numpy(), target, 1))
    chosen = best_offset(counted)
    assert 3 < OFFSETS[chosen] <= 3 + np.log(0.98 / 0.02) + 1
    plain = int(np.flatnonzero(OFFSETS == 0)[0])
    assert mean_iou(counted[chosen]) > mean_iou(counted[plain]) + 0.2


def test_a_class_that_is_not_labelled_has_no_say() -> None:
    """One false pixel of it, far ahead, would cost half a mean of two classes."""
    random = np.random.default_rng(0)
    target = (random.random((1, 100, 100)) < 0.1).astype(np.int64)
    lead = torch.tensor(random.normal(np.where(target, 3.0, -1.0), 1.5))
    logits = torch.stack([torch.zeros_like(lead), lead, torch.full_like(lead, -50.0)], dim=1)
    alone = best_offset(confusion_by_offset(count_leads(lead_codes(logits).numpy(), target, 2)))
    logits[0, 2, 0, 0] = 5.1
    assert target[0, 0, 0] == 0
    spoilt = best_offset(confusion_by_offset(count_leads(lead_codes(logits).numpy(), target, 2)))
    assert spoilt == alone


def test_without_a_reason_there_is_no_offset() -> None:
    nothing = np.zeros((len(OFFSETS), CLASSES + 1, CLASSES + 1), np.int64)
    assert OFFSETS[best_offset(nothing)] == 0
    perfect = nothing + np.diag([9, 1, 1, 1])
    assert OFFSETS[best_offset(perfect)] == 0
    unlabelled = nothing.copy()
    unlabelled[:, 0, 0] = 9
    unlabelled[OFFSETS < 0, 0, 1] = 1
    assert OFFSETS[best_offset(unlabelled)] == 0
