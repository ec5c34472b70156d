"""The gate between a new model and the served one."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from dbp_mae.data.manifest import manifest_from_rows, write_manifest
from dbp_mae.errors import UserError
from dbp_mae.inspection.images import encode_png
from pipelines.flows.promotion import CANDIDATE, PRODUCTION, promote, served_model
from pipelines.flows.retrain import held_out_miou

PARAMS = Path(__file__).parents[2] / "params.yaml"
DARK, WIRE, EPOXY = 20, 128, 240


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    CANDIDATE.parent.mkdir()
    CANDIDATE.write_bytes(b"new")


def serve(content: bytes) -> None:
    PRODUCTION.parent.mkdir()
    PRODUCTION.write_bytes(content)


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
    judged = {PRODUCTION: served}
    sentence = promote(new, judged.__getitem__, tolerance)
    assert PRODUCTION.read_bytes() == (b"new" if promoted else b"old")
    assert f"{new:.3f}" in sentence
    assert f"{served:.3f}" in sentence
    assert sorted(path.name for path in PRODUCTION.parent.iterdir()) == [PRODUCTION.name]


def test_the_first_model_is_promoted_and_served(tmp_path: Path) -> None:
    assert served_model() == CANDIDATE
    promote(0.1, {}.__getitem__, 0.0)
    assert served_model() == PRODUCTION
    assert PRODUCTION.read_bytes() == b"new"


def write_held_out(classes: list[str], labelled: int) -> None:
    """Write one held-out image of a wire and an epoxy, the epoxy labelled as class `labelled`."""
    raw = yaml.safe_load(PARAMS.read_text())
    raw["data"] |= {"source": "source", "classes": classes, "defects": classes[-1:]}
    Path("params.yaml").write_text(yaml.safe_dump(raw))
    image = np.full((64, 64, 1), DARK, np.uint8)
    mask = np.zeros((64, 64), np.uint8)
    for rows, brightness, label in [(np.s_[8:16], WIRE, 1), (np.s_[40:48], EPOXY, labelled)]:
        image[rows] = brightness
        mask[rows] = label
    row = {"path": "images/a.png", "mask_path": "masks/a.png", "group": "a"}
    for folder, array in [("source/images", image), ("data/masks", mask)]:
        Path(folder).mkdir(parents=True)
        (Path(folder) / "a.png").write_bytes(encode_png(array))
    frame = manifest_from_rows([row | {"label_state": "labelled", "split": "test"}])
    write_manifest(frame, Path("data/validated.parquet"))


@pytest.mark.parametrize(("labelled", "expected"), [(2, 1.0), (1, 0.25)])
def test_the_served_model_is_judged_on_the_present_test_split(
    tiny_model: Path, labelled: int, expected: float
) -> None:
    write_held_out(["wire", "epoxy"], labelled)
    assert held_out_miou(tiny_model) == pytest.approx(expected)


def test_a_model_of_other_classes_needs_a_decision(tiny_model: Path) -> None:
    write_held_out(["wire", "scratch"], 1)
    with pytest.raises(UserError, match=f"Delete {tiny_model} to promote"):
        held_out_miou(tiny_model)
