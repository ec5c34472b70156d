"""A training's folder follows what the training depends on; its last state is whole."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from default_params import default_params
from full_disk import error_on_a_full_disk

from dbp_mae.data.manifest import manifest_from_rows
from dbp_mae.encoder import EncoderSpec
from dbp_mae.errors import UserError
from dbp_mae.training import checkpoint
from dbp_mae.training.checkpoint import Checkpoint, not_finite, run_folder

PARAMS = default_params().finetune
SPEC = EncoderSpec("nano", 8, 64, 1, (0.4,), (0.2,))


@pytest.fixture
def frame() -> pd.DataFrame:
    labelled = {"label_state": "labelled", "mask_sha256": "m0"}
    rows = [
        {"path": "images/0.png", "sha256": "a", "group": "p0", "split": "train", **labelled},
        {"path": "images/1.png", "sha256": "b", "group": "p1", "split": "val", **labelled},
        {"path": "images/2.png", "sha256": "c", "group": "p2", "split": "train"},
    ]
    return manifest_from_rows(rows)


def test_same_training_finds_its_folder_again(frame: pd.DataFrame) -> None:
    again = replace(SPEC), PARAMS.model_copy()
    assert run_folder("a", frame, SPEC, PARAMS) == run_folder("a", frame.copy(), *again)
    other_values = frame.assign(sharpness=1.0)  # follow from the image
    assert run_folder("a", frame, PARAMS) == run_folder("a", other_values, PARAMS)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("path", "images/9.png"),
        ("sha256", "z"),
        ("split", "test"),
        ("label_state", "unlabelled"),
        ("group", "p9"),
        ("mask_sha256", "m9"),
    ],
)
def test_other_data_get_another_folder(frame: pd.DataFrame, column: str, value: str) -> None:
    other = frame.copy()
    other.loc[1, column] = value
    assert run_folder("a", other, PARAMS) != run_folder("a", frame, PARAMS)


def test_other_order_settings_and_names_get_another_folder(frame: pd.DataFrame) -> None:
    folders = [
        run_folder("a", frame, PARAMS, SPEC),
        run_folder("b", frame, PARAMS, SPEC),
        run_folder("a", frame[::-1], PARAMS, SPEC),
        run_folder("a", frame, PARAMS.model_copy(update={"seed": 9}), SPEC),
        run_folder("a", frame, PARAMS, replace(SPEC, std=(0.2 + 1e-12,))),
        run_folder("a", frame, PARAMS),
    ]
    assert len(set(folders)) == len(folders)


def test_other_code_gets_another_folder(
    frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run_folder("a", frame, PARAMS)
    monkeypatch.setattr(checkpoint, "code_sha256", lambda: "other")
    assert run_folder("a", frame, PARAMS) != before


def test_state_is_kept_until_it_is_discarded(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "run")
    assert checkpoint.load() is None
    for step in (1, 2):
        checkpoint.save({"step": step, "weights": {"w": torch.full((3,), float(step))}})
    state = Checkpoint(tmp_path / "run").load()
    assert state is not None
    assert state["step"] == 2
    assert torch.equal(state["weights"]["w"], torch.full((3,), 2.0))
    checkpoint.discard()
    assert checkpoint.load() is None
    assert not checkpoint.folder.exists()
    checkpoint.discard()


@pytest.mark.parametrize("damage", [b"", b"garbage", b"PK\3\4 cut off"])
def test_a_damaged_state_is_one_sentence(damage: bytes, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "run")
    checkpoint.save({"step": 1})
    checkpoint.path.write_bytes(damage)
    with pytest.raises(UserError, match=f"is damaged: remove {checkpoint.folder}"):
        checkpoint.load()


def test_one_process_at_a_time_trains_in_a_folder(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from dbp_mae.training.checkpoint import Checkpoint\n"
        "with Checkpoint(Path(sys.argv[1])).alone(): print('trains', flush=True)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "run")]
    with Checkpoint(tmp_path / "run").alone():
        second = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert second.stdout is not None
        assert second.stdout.readline().startswith("Another process is still at ")
        assert second.poll() is None
    assert second.communicate()[0] == "trains\n"


def test_tensors_that_are_not_finite_are_named() -> None:
    good, bad = torch.zeros(2), torch.tensor([0.0, torch.nan])
    state = {
        "model": {"a": good, "b": bad},
        "optimizers": [{"m": [good, bad / 0]}],
        "best": torch.nan,
    }
    assert list(not_finite(state)) == ["model.b", "optimizers.0.m.1"]


def test_a_disk_that_fills_up_is_told(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save({"step": 1})
    imports = "import torch; from dbp_mae.training.checkpoint import Checkpoint"
    error = error_on_a_full_disk(
        imports, "Checkpoint(path).save({'w': torch.zeros(100_000)})", tmp_path
    )
    assert error.startswith("error: File too large: make room")
    assert checkpoint.load() == {"step": 1}


def test_interrupted_save_leaves_the_last_state(tmp_path: Path) -> None:
    class Interrupting:
        def __reduce__(self) -> str:
            raise KeyboardInterrupt

    checkpoint = Checkpoint(tmp_path)
    checkpoint.save({"step": 1})
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save({"step": 2, "weights": torch.zeros(9), "odd": Interrupting()})
    assert checkpoint.load() == {"step": 1}
    assert list(tmp_path.iterdir()) == [checkpoint.path]
