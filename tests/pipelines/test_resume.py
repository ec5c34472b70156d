"""A stopped pre-training goes on with other settings when its user says so."""

from pathlib import Path

import pandas as pd
import pytest
from default_params import default_params

from dbp_mae.data.manifest import manifest_from_rows, write_manifest
from dbp_mae.errors import UserError
from dbp_mae.params import Params
from dbp_mae.training.checkpoint import Checkpoint
from pipelines.artifacts import VALIDATED
from pipelines.resume import resume
from pipelines.stages.pretrain import last_state, tell_of_stopped


def calmer(params: Params) -> Params:
    pretrain = params.pretrain.model_copy(update={"learning_rate": 1e-4})
    return params.model_copy(update={"pretrain": pretrain})


@pytest.fixture
def frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    monkeypatch.chdir(tmp_path)
    rows = [{"path": "images/0.png", "sha256": "a", "group": "p0", "split": "train"}]
    write_manifest(manifest_from_rows(rows), VALIDATED)
    return manifest_from_rows(rows)


@pytest.fixture
def stopped(frame: pd.DataFrame) -> Checkpoint:
    checkpoint = last_state(frame, default_params())
    checkpoint.save({"step": 7})
    (checkpoint.folder / "energy.json").write_text("{}")
    return checkpoint


def test_state_and_energy_go_along(stopped: Checkpoint, frame: pd.DataFrame) -> None:
    params = calmer(default_params())
    folder = resume(stopped.folder, params)
    assert folder == last_state(frame, params).folder != stopped.folder
    assert Checkpoint(folder).load() == stopped.load() == {"step": 7}
    assert (folder / "energy.json").read_text() == "{}"


def test_a_state_that_is_there_is_not_replaced(stopped: Checkpoint) -> None:
    with pytest.raises(UserError, match="change the setting first"):
        resume(stopped.folder, default_params())
    resume(stopped.folder, calmer(default_params()))
    with pytest.raises(UserError, match="remove that folder"):
        resume(stopped.folder, calmer(default_params()))


def test_a_state_with_no_step_left_is_refused(stopped: Checkpoint) -> None:
    pretrain = default_params().pretrain.model_copy(update={"steps": 7})
    with pytest.raises(UserError, match=r"has taken 7 steps already.*pretrain\.steps \(7\)"):
        resume(stopped.folder, default_params().model_copy(update={"pretrain": pretrain}))


def test_a_folder_without_state_is_refused(frame: pd.DataFrame) -> None:
    with pytest.raises(UserError, match="holds no state"):
        resume(Path(".checkpoints/pretrain-0"), default_params())
    other = Checkpoint(Path(".checkpoints/compare-seed-1-0"))
    other.save({"training": {"step": 7}, "rows": []})
    with pytest.raises(UserError, match="holds no state of a pre-training"):
        resume(other.folder, default_params())


def test_what_was_stopped_is_named_where_another_begins(
    stopped: Checkpoint, frame: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    tell_of_stopped(last_state(frame, default_params()))
    assert capsys.readouterr().out == ""
    tell_of_stopped(last_state(frame, calmer(default_params())))
    assert f"`python -m pipelines.resume {stopped.folder}`" in capsys.readouterr().out
