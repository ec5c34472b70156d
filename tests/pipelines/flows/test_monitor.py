"""Drift of what the line sees, from the service's log."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from prefect_runs import artifacts

from dbp_mae.errors import UserError
from dbp_mae.inspection.model_card import ModelCard
from pipelines.flows.monitor import monitor, read_inspections
from pipelines.flows.promotion import PRODUCTION


@pytest.fixture
def log(
    prefect_server: None, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Return where the log of a service with the tiny model would be."""
    monkeypatch.chdir(tmp_path)
    PRODUCTION.parent.mkdir(parents=True)
    PRODUCTION.symlink_to(tiny_model)
    return tmp_path / "inspections.jsonl"


def inspections(card: ModelCard, count: int, **factors: float) -> str:
    """Return a log of images like the training images, but for a factor on some statistics."""
    generator = np.random.default_rng(0)
    ranks = np.linspace(0, 1, 21)
    values = {
        name: factors.get(name, 1) * np.interp(generator.random(count), ranks, quantiles)
        for name, quantiles in card.reference.items()
    }
    lines = [
        {"time": datetime.now(UTC).isoformat(), "verdict": "accept"}
        | {name: column[row] for name, column in values.items()}
        for row in range(count)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines)


def test_images_like_the_training_images_pass(
    log: Path, tiny_card: ModelCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.write_text(inspections(tiny_card, 400))
    monkeypatch.setenv("DBP_MAE_INSPECTION_LOG", str(log))
    state = monitor(return_state=True)
    assert state.is_completed(), state.message
    table = json.loads(artifacts(state)["drift"])
    assert [row["drifted"] for row in table] == ["no"] * 4


def test_the_model_is_that_of_the_services_variable(
    log: Path, tiny_card: ModelCard, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.write_text(inspections(tiny_card, 400))
    PRODUCTION.unlink()
    monkeypatch.setenv("DBP_MAE_MODEL", str(tiny_model))
    assert monitor(log, return_state=True).is_completed()
    monkeypatch.setenv("DBP_MAE_MODEL", "gone.onnx")
    assert "gone.onnx" in monitor(log, return_state=True).message


def test_a_darker_line_is_found_in_the_last_inspections(log: Path, tiny_card: ModelCard) -> None:
    log.write_text(inspections(tiny_card, 400) + inspections(tiny_card, 300, mean=0.5))
    state = monitor(log, window=300, return_state=True)
    assert (state.name, state.is_failed()) == ("Drifted", True)
    assert state.message.startswith("mean of the last 300 images")
    table = json.loads(artifacts(state)["drift"])
    assert [row["statistic"] for row in table if row["drifted"] == "yes"] == ["mean"]


def test_a_line_that_is_being_written_is_left_for_the_next_time(
    tmp_path: Path, tiny_card: ModelCard
) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(inspections(tiny_card, 3)[:-10])
    observed, skipped = read_inspections(log, 500)
    assert (len(observed), skipped) == (2, 0)


def test_too_few_inspections_are_said_to_be_too_few(log: Path, tiny_card: ModelCard) -> None:
    log.write_text(inspections(tiny_card, 49, mean=0.1))
    state = monitor(log, return_state=True)
    assert (state.name, state.is_completed()) == ("TooFew", True)
    assert "49, and 50 are needed" in state.message
    log.write_text(inspections(tiny_card, 50, mean=0.1))
    assert monitor(log, return_state=True).name == "Drifted"


def test_a_log_that_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"cannot be read \(Is a directory\): name the service's log"
    ):
        read_inspections(tmp_path, 500)


def test_a_log_that_has_fallen_silent_is_no_good_sign(log: Path, tiny_card: ModelCard) -> None:
    old = datetime.now(UTC) - timedelta(hours=30)
    lines = [json.loads(line) for line in inspections(tiny_card, 60).splitlines()]
    stale = "".join(json.dumps(line | {"time": old.isoformat()}) + "\n" for line in lines)
    log.write_text(stale)
    state = monitor(log, silence=29, return_state=True)
    assert (state.name, state.is_failed()) == ("Silent", True)
    assert f"is of {old:%Y-%m-%d %H:%M} UTC, more than 29 hours ago" in state.message
    assert monitor(log, silence=31, return_state=True).name == "Completed"
    log.write_text(stale + inspections(tiny_card, 1))
    assert monitor(log, silence=29, return_state=True).name == "Completed"


def whole(**changes: object) -> bytes:
    """Return a line of the log with some values replaced."""
    values = {
        "time": "2026-11-22T02:00:00Z",
        "mean": 0.5,
        "std": 0.1,
        "sharpness": 9,
        "saturated": 0,
    }
    return json.dumps(values | changes).encode()


FOREIGN = [
    *(b"{", b"[]", b"7", b'{"mean": 0.5}', b"\xff", b"", b"[" * 100_000),
    *(whole(mean=value) for value in ("dark", None, float("nan"), float("inf"), 10**400)),
    *(whole(time=value) for value in ("yesterday", 7, None)),
]


@pytest.mark.parametrize("line", FOREIGN, ids=range(len(FOREIGN)))
def test_a_foreign_line_is_skipped(tmp_path: Path, line: bytes) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(line + b"\n")
    with pytest.raises(UserError, match="has no inspection"):
        read_inspections(log, 500)
    log.write_bytes(whole() + b"\n" + line + b"\n")
    observed, skipped = read_inspections(log, 500)
    assert (len(observed), skipped) == (1, 1)


def test_the_message_says_how_many_lines_were_skipped(log: Path, tiny_card: ModelCard) -> None:
    log.write_text("half\n" * 3 + inspections(tiny_card, 400))
    message = monitor(log, window=402, return_state=True).message
    assert message.startswith("The last 400 images look like")
    assert message.endswith("Skipped lines that are not inspections: 2.")
    assert "Skipped" not in monitor(log, window=400, return_state=True).message


def test_nothing_inspected_yet_is_a_sentence(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DBP_MAE_INSPECTION_LOG", raising=False)
    assert "set DBP_MAE_INSPECTION_LOG" in monitor(return_state=True).message
    state = monitor(log, return_state=True)
    assert state.is_failed()
    assert state.message == f"{log} is missing: has the service inspected anything yet?"
    log.touch()
    with pytest.raises(UserError, match="is empty"):
        read_inspections(log, 500)


def test_a_window_of_too_few_inspections_is_refused(log: Path) -> None:
    for window in (0, -1, 49):
        assert monitor(log, window, return_state=True).message.startswith(f"window is {window}")
