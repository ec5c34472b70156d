import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

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
def test_objects_drawn_from_their_contours_rebuild_the_mask(
    tiny_card: ModelCard, mask: np.ndarray
) -> None:
    card = tiny_card.model_copy(update={"min_area": 1})
    found = find_objects(mask, certain(mask), card)
    assert sum(item.area for item in found) == np.count_nonzero(mask)
    for item in found:
        drawn = np.zeros_like(mask)
        cv2.drawContours(drawn, [np.array(item.contour)], -1, 1, cv2.FILLED)
        inside = drawn.astype(bool) & (mask == item.class_index)
        left, top, width, height = item.box
        assert np.count_nonzero(inside) >= item.area
        assert cv2.boundingRect(drawn) == (left, top, width, height)


def test_pixels_that_touch_at_a_corner_are_one_object(tiny_card: ModelCard) -> None:
    mask = np.eye(6, dtype=np.uint8)
    (item,) = find_objects(mask, certain(mask, 0.75), tiny_card)
    assert (item.class_name, item.box, item.area, item.defect) == ("wire", (0, 0, 6, 6), 6, False)
    assert item.score == pytest.approx(0.75)


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
