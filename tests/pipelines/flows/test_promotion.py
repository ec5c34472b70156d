"""The gate between a new model and the served one."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from default_params import write_default_params

from dbp_mae.data.manifest import manifest_from_rows
from dbp_mae.errors import UserError
from dbp_mae.inspection.images import encode_png
from pipelines.artifacts import MODEL
from pipelines.flows.promotion import PRODUCTION, SEEN, promote, served_model
from pipelines.flows.retrain import held_out_miou

DARK, WIRE, EPOXY = 20, 128, 240


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    MODEL.parent.mkdir()
    MODEL.write_bytes(b"new")


def manifest(**splits: str) -> pd.DataFrame:
    """Return labelled images of these names and splits; the first letter is the part's."""
    return manifest_from_rows(
        {
            "path": f"images/{name}.png",
            "sha256": name,
            "group": name[0],
            "split": split,
            "label_state": "labelled",
        }
        for name, split in splits.items()
    )


def serve(content: bytes, *seen: str) -> None:
    PRODUCTION.parent.mkdir()
    PRODUCTION.write_bytes(content)
    SEEN.write_text("\n".join(["sha256,group", *seen]))


class Judge:
    """Knows the mIoU of both models; notes the images they are judged on."""

    def __init__(self, new: float, served: float) -> None:
        self.miou = {MODEL: new, PRODUCTION: served}
        self.images: list[list[str]] = []

    def __call__(self, model: Path, held_out: pd.DataFrame) -> float:
        self.images.append(list(held_out["sha256"]))
        return self.miou[model]


@pytest.mark.parametrize(
    ("new", "served", "tolerance", "promoted"),
    [
        (0.7, 0.6, 0.0, True),
        (0.6, 0.6, 0.0, True),
        (0.59, 0.6, 0.0, False),
        (0.59, 0.6, 0.02, True),
        (0.57, 0.6, 0.02, False),
    ],
)
def test_a_worse_model_is_not_promoted(
    new: float, served: float, tolerance: float, promoted: bool
) -> None:
    serve(b"old")
    sentence = promote(0.9, manifest(a="test"), Judge(new, served), tolerance)
    assert PRODUCTION.read_bytes() == (b"new" if promoted else b"old")
    assert f"{new:.3f}" in sentence
    assert f"{served:.3f}" in sentence
    assert set(PRODUCTION.parent.iterdir()) == {PRODUCTION, SEEN}


def test_both_are_judged_on_what_the_served_model_has_not_seen() -> None:
    judge = Judge(0.7, 0.6)
    promote(0.7, manifest(a="train", b="val", c="test", d="test"), judge, 0.0)
    assert judge.images == []  # the first model

    MODEL.write_bytes(b"newer")
    redrawn = manifest(a="test", a2="test", b="test", c="train", d="test", e="test")
    assert "on 2 images" in promote(0.7, redrawn, judge, 0.0)
    assert judge.images == [["d", "e"]] * 2

    MODEL.write_bytes(b"newest")
    with pytest.raises(UserError, match=f"has seen every part.*delete {PRODUCTION}"):
        promote(0.7, manifest(c="test", d="train"), judge, 0.0)
    assert PRODUCTION.read_bytes() == b"newer"


def test_a_served_model_of_unknown_training_needs_a_decision() -> None:
    serve(b"old")
    for known in (None, "sha256\na\n"):  # an earlier version listed no parts
        if known is None:
            SEEN.unlink()
        else:
            SEEN.write_text(known)
        with pytest.raises(UserError, match=f"{SEEN} does not list .*delete {PRODUCTION}"):
            promote(0.7, manifest(a="test"), Judge(0.7, 0.6), 0.0)


def test_what_a_kill_left_without_its_list_gets_it_with_the_next_run() -> None:
    promote(0.7, manifest(a="train", b="test"), Judge(0.7, 0.7), 0.0)
    known = SEEN.read_text()
    SEEN.unlink()
    assert "the new one already" in promote(
        0.7, manifest(a="train", b="test"), Judge(0.7, 0.7), 0.0
    )
    assert SEEN.read_text() == known


def test_a_part_that_was_renamed_is_known_by_its_images() -> None:
    serve(b"old", "a,old name", "b,NA")
    judge = Judge(0.7, 0.6)
    promote(0.7, manifest(a="test", c="test"), judge, 0.0)
    assert judge.images == [["c"]] * 2


def test_the_first_model_is_promoted_and_served(tmp_path: Path) -> None:
    assert served_model() == MODEL
    promote(0.1, manifest(a="train"), Judge(0.1, 0.0), 0.0)
    assert served_model() == PRODUCTION
    assert PRODUCTION.read_bytes() == b"new"


def write_held_out(classes: list[str], labelled: int) -> pd.DataFrame:
    """Write and return one held-out image of a wire and an epoxy, the epoxy labelled as class `labelled`."""
    file = write_default_params(Path())
    raw = yaml.safe_load(file.read_text())
    raw["data"] |= {"source": "source", "classes": classes, "defects": classes[-1:]}
    file.write_text(yaml.safe_dump(raw))
    image = np.full((64, 64, 1), DARK, np.uint8)
    mask = np.zeros((64, 64), np.uint8)
    for rows, brightness, label in [(np.s_[8:16], WIRE, 1), (np.s_[40:48], EPOXY, labelled)]:
        image[rows] = brightness
        mask[rows] = label
    row = {"path": "images/a.png", "mask_path": "masks/a.png", "group": "a"}
    for folder, array in [("source/images", image), ("data/masks", mask)]:
        Path(folder).mkdir(parents=True)
        (Path(folder) / "a.png").write_bytes(encode_png(array))
    return manifest_from_rows([row | {"label_state": "labelled", "split": "test"}])


@pytest.mark.parametrize(("labelled", "expected"), [(2, 1.0), (1, 0.5)])
def test_a_model_is_judged_on_the_labels_as_they_are_now(
    tiny_model: Path, labelled: int, expected: float
) -> None:
    held_out = write_held_out(["wire", "epoxy"], labelled)
    assert held_out_miou(tiny_model, held_out) == pytest.approx(expected)


def test_a_model_of_other_classes_needs_a_decision(tiny_model: Path) -> None:
    held_out = write_held_out(["wire", "scratch"], 1)
    with pytest.raises(UserError, match=f"a person must decide: delete {PRODUCTION}"):
        held_out_miou(tiny_model, held_out)
