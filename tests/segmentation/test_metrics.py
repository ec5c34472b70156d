"""Pixel, object and image metrics: against torchmetrics and scipy, by hand, and by property."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import binomtest
from torchmetrics.segmentation import MeanIoU

from dbp_mae.segmentation.metrics import (
    Overlap,
    Rate,
    bootstrap_weights,
    components,
    confusion_matrix,
    escape_and_overkill,
    iou,
    match_objects,
    mean_iou,
    overlap,
)

CLASSES = 3
SHAPE = (6, 7)
predictions = hnp.arrays(np.uint8, SHAPE, elements=st.integers(0, CLASSES))
targets = hnp.arrays(np.uint8, SHAPE, elements=st.sampled_from([0, 1, 2, 3, 255]))
masks = hnp.arrays(bool, SHAPE)


# By pixel


@given(predictions, targets)
def test_every_labelled_pixel_is_counted_once(prediction: np.ndarray, target: np.ndarray) -> None:
    confusion = confusion_matrix(prediction, target, CLASSES)
    assert confusion.shape == (CLASSES + 1, CLASSES + 1)
    assert confusion.dtype == np.int64
    assert confusion.sum() == (target != 255).sum()
    for index in range(CLASSES + 1):
        assert confusion[index].sum() == (target == index).sum()


@given(predictions, targets, predictions)
def test_ignored_pixels_never_count(
    prediction: np.ndarray, target: np.ndarray, other: np.ndarray
) -> None:
    changed = np.where(target == 255, other, prediction)
    np.testing.assert_array_equal(
        confusion_matrix(prediction, target, CLASSES), confusion_matrix(changed, target, CLASSES)
    )


@given(predictions, targets)
def test_the_sum_over_images_is_the_matrix_of_the_mosaic(
    prediction: np.ndarray, target: np.ndarray
) -> None:
    whole = confusion_matrix(prediction, target, CLASSES)
    parts = sum(
        confusion_matrix(p, t, CLASSES)
        for p, t in zip(np.split(prediction, 2), np.split(target, 2), strict=True)
    )
    np.testing.assert_array_equal(whole, parts)


@given(targets)
def test_a_perfect_prediction_scores_one(target: np.ndarray) -> None:
    shares = iou(confusion_matrix(np.where(target == 255, 0, target), target, CLASSES))
    for index, share in enumerate(shares):
        assert share == 1.0 if (target == index).any() else np.isnan(share)


@pytest.mark.parametrize("seed", range(3))
def test_iou_agrees_with_torchmetrics(seed: int) -> None:
    random = np.random.default_rng(seed)
    prediction = random.integers(0, CLASSES + 1, (64, 64))
    target = random.integers(0, CLASSES + 1, (64, 64))
    reference = MeanIoU(num_classes=CLASSES + 1, per_class=True, input_format="index")
    reference.update(torch.from_numpy(prediction)[None], torch.from_numpy(target)[None])
    np.testing.assert_allclose(
        iou(confusion_matrix(prediction, target, CLASSES)), reference.compute(), rtol=1e-6
    )


def test_iou_by_hand() -> None:
    prediction = np.array([[0, 1, 1, 2], [0, 0, 1, 1]])
    target = np.array([[0, 1, 1, 0], [255, 1, 255, 1]])
    confusion = confusion_matrix(prediction, target, CLASSES)
    # background: 1 of 1 + false 2 + missed 1; class 1: 3 of 4; class 2: 0 of 1; class 3 absent
    np.testing.assert_allclose(iou(confusion), [1 / 3, 3 / 4, 0.0, np.nan])
    assert mean_iou(confusion) == pytest.approx(3 / 4)  # class 2 is not labelled


@given(predictions, targets)
def test_models_are_averaged_over_the_same_classes(
    prediction: np.ndarray, target: np.ndarray
) -> None:
    confusion = confusion_matrix(prediction, target, CLASSES)
    labelled = [index for index in range(1, CLASSES + 1) if (target == index).any()]
    shares = iou(confusion)[labelled]
    assert mean_iou(confusion) == pytest.approx(shares.mean() if labelled else np.nan, nan_ok=True)


def test_mean_iou_of_a_stack_is_that_of_each() -> None:
    stack = np.random.default_rng(0).integers(0, 9, (5, CLASSES + 1, CLASSES + 1))
    np.testing.assert_allclose(mean_iou(stack), [mean_iou(one) for one in stack])
    assert np.isnan(mean_iou(np.zeros((4, 4), dtype=np.int64)))


# By object


def test_components_touch_at_corners() -> None:
    mask = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0], [1, 0, 1]], dtype=bool)
    labels = components(mask)
    assert labels.max() == 3
    assert labels[0, 0] == labels[1, 1] > 0
    assert labels[3, 0] != labels[3, 2]


@given(masks, masks)
def test_overlap_is_iou_of_each_pair(reported: np.ndarray, labelled: np.ndarray) -> None:
    a, b = components(reported), components(labelled)
    result = overlap(a, b, np.zeros(SHAPE, dtype=bool))
    assert result.iou.shape == (a.max(), b.max())
    assert not result.ignored.any()
    for i, j in np.ndindex(result.iou.shape):
        one, other = a == i + 1, b == j + 1
        assert result.iou[i, j] == pytest.approx((one & other).sum() / (one | other).sum())


@given(masks, masks, masks)
def test_objects_on_ignored_pixels_are_neither_false_nor_found(
    reported: np.ndarray, labelled: np.ndarray, ignored: np.ndarray
) -> None:
    inside = components(reported & ignored)
    laid = overlap(inside, components(labelled & ~ignored), ignored)
    matches = match_objects(laid, 0.1)
    assert not matches.found.any()
    assert not matches.false.any()


def test_an_object_half_on_ignored_pixels_still_counts() -> None:
    reported = components(np.array([[1, 1, 1, 1]], dtype=bool))
    nothing = np.zeros((1, 4), dtype=np.int32)
    half, most = np.array([[1, 1, 0, 0]], dtype=bool), np.array([[1, 1, 1, 0]], dtype=bool)
    assert match_objects(overlap(reported, nothing, half), 0.1).false.tolist() == [True]
    assert match_objects(overlap(reported, nothing, most), 0.1).false.tolist() == [False]


def test_a_find_that_spills_into_ignored_pixels_is_a_find() -> None:
    reported = components(np.array([[1, 1, 1, 0]], dtype=bool))
    labelled = components(np.array([[1, 0, 0, 0]], dtype=bool))
    ignored = np.array([[0, 1, 1, 1]], dtype=bool)
    assert match_objects(overlap(reported, labelled, ignored), 0.9).found.tolist() == [True]


@given(masks)
def test_the_truth_finds_everything(labelled: np.ndarray) -> None:
    labels = components(labelled)
    matches = match_objects(overlap(labels, labels, np.zeros(SHAPE, dtype=bool)), 0.99)
    assert matches.found.all()
    assert not matches.false.any()


@given(masks, masks, st.floats(0.05, 0.95), st.floats(0.05, 0.95))
def test_matching_is_one_to_one_and_falls_with_the_threshold(
    reported: np.ndarray, labelled: np.ndarray, one: float, other: float
) -> None:
    laid = overlap(components(reported), components(labelled), np.zeros(SHAPE, dtype=bool))
    loose, strict = (match_objects(laid, share) for share in sorted((one, other)))
    for matches in (loose, strict):
        assert matches.found.sum() == (~matches.false).sum()
    assert not (strict.found & ~loose.found).any()


@given(masks, masks)
def test_fewer_reports_are_never_more_false_ones(
    reported: np.ndarray, labelled: np.ndarray
) -> None:
    laid = overlap(components(reported), components(labelled), np.zeros(SHAPE, dtype=bool))
    chosen = np.arange(len(laid.iou)) % 2 == 0
    fewer = match_objects(laid.of(chosen), 0.1)
    assert len(fewer.false) == chosen.sum()
    assert fewer.found.sum() <= match_objects(laid, 0.1).found.sum()


def test_matching_by_hand() -> None:
    # The first reported object covers both labelled ones; the second fits the second better.
    laid = Overlap(np.array([[0.4, 0.5], [0.0, 0.9], [0.05, 0.0]]), np.zeros(3, dtype=bool))
    matches = match_objects(laid, 0.1)
    assert matches.found.tolist() == [True, True]
    assert matches.false.tolist() == [False, False, True]


# By image


def test_escape_and_overkill_by_hand() -> None:
    defective = np.array([True, True, True, False, False])
    rejected = np.array([True, False, True, True, False])
    escapes, overkill = escape_and_overkill(defective, rejected, np.arange(5))
    assert escapes == Rate(1, 3)
    assert overkill == Rate(1, 2)


def test_images_of_one_part_are_one_witness() -> None:
    """The verdicts of a part's four views agree, or they would be worth more than is counted."""
    random = np.random.default_rng(0)
    parts, views, share, covered = 24, 4, 0.2, 0
    for _ in range(400):
        rejected = np.repeat(random.random(parts) < share, views)
        groups = np.repeat(np.arange(parts), views)
        _, overkill = escape_and_overkill(np.zeros(parts * views, bool), rejected, groups)
        assert overkill.witnesses == parts
        assert overkill.interval is not None
        low, high = overkill.interval
        covered += low <= share <= high
    assert 0.93 <= covered / 400 <= 0.98


@pytest.mark.parametrize(("count", "trials"), [(0, 1), (0, 40), (3, 17), (17, 17), (500, 1000)])
def test_interval_agrees_with_scipy(count: int, trials: int) -> None:
    expected = binomtest(count, trials).proportion_ci(method="wilson")
    assert Rate(count, trials).interval == pytest.approx((expected.low, expected.high))


def test_a_rate_of_nothing_is_unknown() -> None:
    assert Rate(0, 0).share is None
    assert Rate(0, 0).interval is None


def test_resamples_hold_as_many_groups_as_there_are() -> None:
    weights = bootstrap_weights(groups=7, draws=50, seed=0)
    assert weights.shape == (50, 7)
    assert (weights.sum(axis=1) == 7).all()
    assert weights.std() > 0
    np.testing.assert_array_equal(weights, bootstrap_weights(groups=7, draws=50, seed=0))
