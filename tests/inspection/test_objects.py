import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from dbp_mae.inspection.model_card import ModelCard
from dbp_mae.inspection.objects import find_objects
from dbp_mae.inspection.verdict import verdict


def certain(mask: np.ndarray, probability: float = 1.0) -> np.ndarray:
    """Return probabilities (3 H W) of which `mask` is the likeliest class."""
    rest = (1 - probability) / 2
    return np.stack([np.where(mask == index, probability, rest) for index in range(3)]).astype(
        np.float32
    )


@given(arrays.arrays(np.uint8, (18, 25), elements=st.integers(0, 2)))
@settings(deadline=None)
def test_a_drawn_contour_is_its_object_without_holes(
    tiny_card: ModelCard, mask: np.ndarray
) -> None:
    card = tiny_card.model_copy(update={"min_area": 1})
    found = find_objects(mask, certain(mask), card)
    assert sum(item.area for item in found) == np.count_nonzero(mask)
    for item in found:
        labels, _ = ndimage.label(mask == item.class_index, structure=np.ones((3, 3)))
        column, row = item.contour[0]
        region = labels == labels[row, column]
        drawn = np.zeros_like(mask)
        cv2.drawContours(drawn, [np.array(item.contour)], -1, 1, cv2.FILLED)
        assert np.array_equal(drawn, ndimage.binary_fill_holes(region))
        assert item.area == np.count_nonzero(region)
        assert item.box == cv2.boundingRect(drawn)


def test_pixels_that_touch_at_a_corner_are_one_object(tiny_card: ModelCard) -> None:
    mask = np.eye(6, dtype=np.uint8)
    (item,) = find_objects(mask, certain(mask, 0.75), tiny_card)
    assert (item.class_name, item.box, item.area, item.defect) == ("wire", (0, 0, 6, 6), 6, False)
    assert item.score == pytest.approx(0.75)


def test_the_score_is_the_mean_probability_over_the_object(tiny_card: ModelCard) -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[5, 5:9] = 1
    probabilities = certain(mask, 0.6)
    probabilities[1, 5, 5] = 1.0
    (item,) = find_objects(mask, probabilities, tiny_card)
    assert item.score == pytest.approx((1.0 + 3 * 0.6) / 4)


def test_a_hole_does_not_split_an_object_and_its_border_is_the_outer_one(
    tiny_card: ModelCard,
) -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[2:12, 3:15] = 2
    mask[5:8, 6:9] = 0
    (item,) = find_objects(mask, certain(mask), tiny_card)
    assert item.area == 120 - 9
    assert sorted(item.contour) == [[3, 2], [3, 11], [14, 2], [14, 11]]


def test_small_and_doubtful_objects_are_left_out(tiny_card: ModelCard) -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[0, :3] = 1
    mask[10, :4] = 1
    assert [item.area for item in find_objects(mask, certain(mask), tiny_card)] == [4]
    assert find_objects(mask, certain(mask, 0.49), tiny_card) == []


def test_only_a_defect_rejects(tiny_card: ModelCard) -> None:
    mask = np.zeros((20, 20), np.uint8)
    assert verdict(find_objects(mask, certain(mask), tiny_card)) == "accept"
    mask[:5, :5] = 1
    assert verdict(find_objects(mask, certain(mask), tiny_card)) == "accept"
    mask[10:15, :5] = 2
    assert verdict(find_objects(mask, certain(mask), tiny_card)) == "reject"
