"""The threshold that ships: where F1 and Youden's index are high for its neighbours too."""

from pathlib import Path

import numpy as np
import pytest

from dbp_mae.evaluation.judging import (
    THRESHOLDS,
    Judged,
    best_min_score,
    judge,
    operating_point,
)
from dbp_mae.inspection.images import encode_png
from dbp_mae.inspection.segmenter import Segmenter
from dbp_mae.segmentation.metrics import Overlap, Rate


def image(true: list[float], false: list[float], missed: int = 0) -> Judged:
    """Return an image with defects found at these scores, false reports at these, and missed defects."""
    iou = np.zeros((len(true) + len(false), len(true) + missed))
    np.fill_diagonal(iou[: len(true), : len(true)], 1.0)
    overlap = Overlap(iou, np.zeros(len(iou), dtype=bool))
    return Judged(np.zeros((2, 2), np.int64), [np.array([*true, *false])], [overlap], 0.0)


def test_false_reports_are_left_out_and_defects_kept() -> None:
    score = best_min_score([image([0.9, 0.95], []), image([], [0.3, 0.4, 0.5])], match_iou=0.1)
    assert score is not None
    assert 0.5 < score <= 0.9


def test_a_lone_peak_is_not_taken_for_the_best() -> None:
    """At 0.15 F1 is highest, between false reports and defects that a hair more would lose."""
    judged = [
        image([0.17] * 2 + [0.8] * 10, [0.11] * 6 + [0.6]),
        image([], [0.12] * 6),
    ]
    f1 = [operating_point(judged, score, 0.1).f1 for score in THRESHOLDS]
    assert THRESHOLDS[int(np.argmax(f1))] == pytest.approx(0.15)
    score = best_min_score(judged, match_iou=0.1)
    assert score is not None
    assert 0.6 < score < 0.8


def test_verdicts_count_beside_the_objects() -> None:
    """By F1 alone the defects of the rejected images would outweigh the good ones' false reports."""
    judged = [image([0.6, 0.65, 0.7, 0.95], []), image([], [0.75])] * 4
    f1 = [operating_point(judged, score, 0.1).f1 for score in THRESHOLDS]
    assert THRESHOLDS[int(np.argmax(f1))] < 0.75
    score = best_min_score(judged, match_iou=0.1)
    assert score is not None
    assert 0.75 < score <= 0.95


def test_youdens_index_is_that_of_the_verdicts() -> None:
    judged = [image([0.9], []), image([0.3], []), image([], [0.8]), image([], [])]
    at = {score: operating_point(judged, score, 0.1).youden for score in (0.0, 0.5, 0.85, 1.0)}
    assert at == {0.0: 0.5, 0.5: 0.0, 0.85: 0.5, 1.0: 0.0}
    assert operating_point(judged[:2], 0.0, 0.1).youden == 0.0


def reported_on_ignored_pixels(missed: int = 0) -> Judged:
    """Return an image with one report, of a score of 0.9, on ignored pixels, and missed defects."""
    seen = Overlap(np.zeros((1, missed)), np.ones(1, dtype=bool))
    return Judged(np.zeros((2, 2), np.int64), [np.array([0.9])], [seen], 0.0)


@pytest.mark.parametrize("missed", [0, 1])
def test_a_report_on_ignored_pixels_rejects_but_a_good_part_is_unknown(missed: int) -> None:
    judged = reported_on_ignored_pixels(missed)
    assert judged.at(0.5, 0.1) == (0, 0, True)
    point = operating_point([judged], 0.5, 0.1)
    assert (point.escape, point.overkill) == (Rate(0, missed), Rate(0, 0))
    unreported = operating_point([judged], 0.95, 0.1)
    assert (unreported.escape, unreported.overkill) == (Rate(missed, missed), Rate(0, 1 - missed))


def test_overkill_is_of_the_images_whose_truth_is_known() -> None:
    judged = [image([], [0.9]), *[reported_on_ignored_pixels()] * 9]
    assert operating_point(judged, 0.5, 0.1).overkill == Rate(1, 1)


def test_among_equals_the_middle_is_chosen() -> None:
    judged = [image([0.99], []), image([], [])]
    assert best_min_score(judged, match_iou=0.1) == pytest.approx(0.45, abs=0.1)


def test_without_a_found_defect_nothing_is_chosen() -> None:
    assert best_min_score([image([], [0.5], missed=1)], match_iou=0.1) is None


def test_objects_below_the_cards_threshold_are_judged_too(tiny_model: Path, tmp_path: Path) -> None:
    segmenter = Segmenter.load(tiny_model)
    segmenter.card = segmenter.card.model_copy(update={"min_score": 0.9})
    image, mask = np.full((80, 80), 20, np.uint8), np.zeros((80, 80), np.uint8)
    image[8:28, 8:28], mask[8:28, 8:28] = 185, 2
    files = tmp_path / "image.png", tmp_path / "mask.png"
    for file, pixels in zip(files, (image, mask), strict=True):
        file.write_bytes(encode_png(pixels))
    assert segmenter.segment(image[..., None]).objects == []
    (judged,) = judge(segmenter, [files])
    assert judged.scores[0] == pytest.approx([0.822], abs=1e-3)
    assert judged.at(0.8, 0.1) == (1, 0, True)
    assert segmenter.card.min_score == 0.9
