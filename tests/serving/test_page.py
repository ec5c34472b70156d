"""The script of the operators' page."""

import json
from pathlib import Path

import numpy as np
import pytest
from operated_page import CHROMIUM, Answer, operated

from dbp_mae.inspection.images import MAX_PIXELS, encode_png
from dbp_mae.inspection.segmenter import Segmenter
from serving.inspector import Inspector

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

BUSY = Answer(b'{"error": "Too many requests"}', 429)
REFUSAL = Answer(b'{"error": "The file is not an image."}', 415)
PROXY = b"<html><body><h1>nginx</h1></body></html>"


@pytest.fixture(scope="module")
def inspector(tiny_model: Path) -> Inspector:
    return Inspector(Segmenter.load(tiny_model), MAX_PIXELS, log=None)


@pytest.fixture(scope="module")
def model(inspector: Inspector) -> Answer:
    return Answer(json.dumps(inspector.identity()).encode())


def inspected(inspector: Inspector, brightness: int) -> Answer:
    image = encode_png(np.full((70, 90), brightness, np.uint8))
    answer = inspector.inspect(image, with_mask=True, with_image=True, given_up=lambda: False)
    return Answer(json.dumps(answer).encode())


@pytest.mark.parametrize(
    ("brightness", "state", "sentence"),
    [(128, "accept", "part.png: no defect"), (250, "reject", "part.png: 1 defect")],
)
def test_the_verdict_is_shown_with_the_model(
    tmp_path: Path, inspector: Inspector, model: Answer, brightness: int, state: str, sentence: str
) -> None:
    shown = operated(tmp_path, model, inspected(inspector, brightness))
    assert (shown.state, shown.sentence) == (state, sentence)
    assert inspector.identity()["sha256"][:12] in shown.facts
    assert "Round trip" in shown.facts


@pytest.mark.parametrize(
    ("segment", "sentence"),
    [
        (REFUSAL, "The file is not an image."),
        (BUSY, "The service is busy: try again in a moment."),
        (Answer(PROXY, 413), "The service answered 413: choose a smaller image."),
        (Answer(PROXY, 502), "The service answered 502: try again, then call whoever runs it."),
        (None, "The service does not answer: is it running?"),
    ],
)
def test_what_comes_instead_of_an_answer_is_said(
    tmp_path: Path, model: Answer, segment: Answer | None, sentence: str
) -> None:
    shown = operated(tmp_path, model, segment)
    assert (shown.state, shown.sentence) == ("error", f"part.png: {sentence}")
    assert "Round trip" not in shown.facts


def test_a_page_in_place_of_the_answer_is_no_service_that_is_down(
    tmp_path: Path, model: Answer
) -> None:
    shown = operated(tmp_path, model, Answer(PROXY))
    assert shown.state == "error"
    assert shown.sentence.startswith("part.png: The answer cannot be read (")


def test_a_refusal_is_shown_though_the_model_was_not_told(tmp_path: Path) -> None:
    shown = operated(tmp_path, BUSY, REFUSAL)
    assert (shown.state, shown.sentence) == ("error", "part.png: The file is not an image.")


def test_a_late_failure_of_the_model_takes_no_verdicts_place(
    tmp_path: Path, inspector: Inspector
) -> None:
    shown = operated(tmp_path, None, inspected(inspector, 128), late=True)
    assert (shown.state, shown.sentence) == ("accept", "part.png: no defect")
    assert inspector.identity()["sha256"][:12] in shown.facts
