"""The training flows over real stages of DVC."""

import csv
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from dvc_workspace import Workspace
from filelock import FileLock
from prefect_runs import artifacts, task_runs

from dbp_mae.data.manifest import manifest_from_rows, write_manifest
from pipelines.flows.chain import run_stage
from pipelines.flows.exclusive import LOCK
from pipelines.flows.promotion import PRODUCTION, SEEN
from pipelines.flows.retrain import retrain
from pipelines.flows.train import train

# As in a dvc.yaml written by hand, the order of the file is not the order of the work.
STAGES = {
    "second": {"cmd": "cp a.txt b.txt", "deps": ["a.txt"], "outs": ["b.txt"]},
    "first": {"cmd": "cp raw.txt a.txt", "deps": ["raw.txt"], "outs": ["a.txt"]},
}


def test_stages_run_in_dvcs_order_once(workspace: Workspace) -> None:
    (workspace.root / "raw.txt").write_text("1")
    workspace.dvc("add", "--quiet", "raw.txt")
    workspace.write_stages(STAGES)

    state = train(return_state=True)
    assert state.is_completed(), state.message
    assert [task.name for task in task_runs(state)] == ["raw.txt.dvc", "first", "second"]
    assert workspace.ran() == ["first", "second"]
    assert "| held-out mIoU | 0.610 |" in artifacts(state)["results"]

    (workspace.root / "raw.txt").write_text("2")
    assert train(return_state=True).is_completed()
    assert workspace.ran() == ["first", "second"]
    assert (workspace.root / "b.txt").read_text() == "2"
    assert not workspace.dvc("status", "--quiet")

    assert train(return_state=True).is_completed()
    assert workspace.ran() == []


def test_a_failed_stage_says_its_sentence_and_ends_the_run(workspace: Workspace) -> None:
    sentence = "masks/7.png has the value 9, but data.classes names 4: correct it."
    refused = {"cmd": f"echo 'error: {sentence}' >&2; exit 1", "outs": ["raw.txt"]}
    workspace.write_stages({"refused": refused, **STAGES})

    state = train(return_state=True)
    assert state.is_failed()
    assert state.message == f"refused: {sentence}"
    (task,) = task_runs(state)
    assert task.state is not None
    assert (task.name, task.state_name, task.state.message) == ("refused", "Failed", sentence)
    assert workspace.ran() == ["refused"]


def test_a_failed_stages_further_lines_are_kept(workspace: Workspace) -> None:
    complaint = "2 of 3 images are quarantined.\n  a.png: It is black.\nCorrect or delete it."
    (workspace.root / "complaint.txt").write_text(f"error: {complaint}\n")
    workspace.write_stages({"validate": {"cmd": "cat complaint.txt >&2; exit 1"}})

    state = train(return_state=True)
    assert state.is_failed()
    assert state.message == f"validate: {complaint}"


def test_a_stage_that_was_stopped_says_so_and_is_not_tried_again(workspace: Workspace) -> None:
    sentence = "pretrain was stopped after step 3 of 9: the same command goes on from there."
    workspace.write_stages({"pretrain": {"cmd": f"echo 'stopped: {sentence}' >&2; exit 1"}})
    state = train(return_state=True)
    assert state.is_failed()
    assert state.message == f"pretrain: {sentence}"
    assert workspace.ran() == ["pretrain"]


def test_dvcs_own_error_is_the_sentence(workspace: Workspace) -> None:
    workspace.write_stages({"first": STAGES["first"]})
    state = train(return_state=True)
    assert state.is_failed()
    assert "No such file" in state.message
    assert "raw.txt" in state.message

    (workspace.root / "dvc.yaml").write_text("stages: {first: {outs: [a.txt]}}")
    state = train(return_state=True)
    assert state.is_failed()
    assert state.message.startswith("DVC cannot read the pipeline: ")


def test_a_killed_stage_is_tried_once_more(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_stage, "retry_delay_seconds", 0)
    once = "test -e was-killed || { touch was-killed; kill -9 $$; }; touch a.txt"
    always = "kill -9 $$; touch b.txt"
    workspace.write_stages(
        {"once": {"cmd": once, "outs": ["a.txt"]}, "always": {"cmd": always, "outs": ["b.txt"]}}
    )
    state = train(return_state=True)
    assert state.is_failed()
    assert "exited with -9" in state.message
    assert workspace.ran() == ["once", "once", "always", "always"]


def test_a_second_run_in_a_workspace_does_nothing(workspace: Workspace) -> None:
    workspace.write_stages({"only": {"cmd": "touch a.txt", "outs": ["a.txt"]}})
    with FileLock(LOCK):
        state = train(return_state=True)
    assert state.name == "Skipped"
    assert "Another run is at work" in state.message
    assert workspace.ran() == []


def test_the_lock_of_a_killed_run_is_free(workspace: Workspace) -> None:
    workspace.write_stages({"only": {"cmd": "touch a.txt", "outs": ["a.txt"]}})
    hold = f"""
from filelock import FileLock
with FileLock({str(LOCK)!r}):
    print(flush=True)
    input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert train(return_state=True).name == "Skipped"
        holder.send_signal(signal.SIGKILL)
    assert train(return_state=True).name == "Completed"


def test_a_named_run_is_an_experiment_with_its_figures(workspace: Workspace) -> None:
    figures = workspace.root / "reports/metrics.json"
    figures.rename(workspace.root / "figures.json")
    evaluate = {
        "cmd": "cp figures.json reports/metrics.json",
        "deps": ["figures.json"],
        "metrics": [{"reports/metrics.json": {"cache": False}}],
    }
    workspace.write_stages({"evaluate": evaluate})
    workspace.run("git", "add", "dvc.yaml")
    workspace.run("git", "commit", "--quiet", "--message=stages")

    state = train(experiment="nightly-1", return_state=True)
    assert state.is_completed(), state.message
    (row,) = csv.DictReader(
        line
        for line in workspace.dvc("exp", "show", "--csv").splitlines()
        if line.startswith(("Experiment,", "nightly-1,"))
    )
    assert row["miou"] == "0.61"

    state = train(experiment="nightly-1", return_state=True)
    assert state.is_failed()
    assert "conflicts with existing experiment 'nightly-1'" in state.message


@pytest.fixture
def exporting(workspace: Workspace, tiny_model: Path) -> Workspace:
    """Return the workspace with a chain whose only stage exports the tiny model."""
    shutil.copy(tiny_model, workspace.root / "made.onnx")
    export = {
        "cmd": "mkdir -p models && cp made.onnx models/segmenter.onnx",
        "deps": ["made.onnx"],
        "outs": ["models/segmenter.onnx"],
    }
    workspace.write_stages({"export": export})
    seen = {"path": "images/a.png", "sha256": "a", "group": "p", "split": "train"}
    write_manifest(manifest_from_rows([seen]), workspace.root / "data/validated.parquet")
    return workspace


def test_retraining_promotes_and_saves_what_changed(exporting: Workspace, tiny_model: Path) -> None:
    state = retrain(return_state=True)
    assert state.is_completed(), state.message
    assert "first model was promoted" in state.message
    assert PRODUCTION.read_bytes() == tiny_model.read_bytes()
    assert SEEN.read_text() == "sha256,group\na,p\n"
    (experiment,) = exporting.experiments()
    assert re.fullmatch(r"retrain-\d{4}-\d\d-\d\d-\d{4}", experiment)

    state = retrain(return_state=True)
    assert state.message == "The served model is the new one already."
    assert exporting.experiments() == [experiment]


def test_retraining_saves_what_an_interrupted_run_left(exporting: Workspace) -> None:
    assert train(return_state=True).is_completed()
    assert exporting.ran() == ["export"]
    assert exporting.experiments() == []

    assert retrain(return_state=True).is_completed()
    assert exporting.ran() == []
    assert len(exporting.experiments()) == 1


def test_retraining_does_not_save_what_is_committed(exporting: Workspace) -> None:
    assert train(return_state=True).is_completed()
    exporting.run("git", "add", "dvc.yaml", "dvc.lock")
    exporting.run("git", "commit", "--quiet", "--message=made by hand")

    assert retrain(return_state=True).is_completed()
    assert exporting.experiments() == []


def test_retraining_takes_committed_values_alone(exporting: Workspace) -> None:
    values = exporting.root / "params.yaml"
    values.write_text("pretrain: {steps: 600}\n")
    exporting.run("git", "add", "params.yaml")
    exporting.run("git", "commit", "--quiet", "--message=values")
    values.write_text("pretrain: {steps: 9}\n")
    state = retrain(return_state=True)
    assert state.is_failed()
    assert state.message.startswith("params.yaml holds values that are not committed")
    assert exporting.ran() == []

    exporting.run("git", "checkout", "--quiet", "params.yaml")
    assert retrain(return_state=True).is_completed()
    assert exporting.ran() == ["export"]


def test_retraining_needs_a_commit(exporting: Workspace) -> None:
    exporting.run("git", "update-ref", "-d", "HEAD")
    state = retrain(return_state=True)
    assert state.is_failed()
    assert state.message.startswith("DVC cannot read what was committed: ")
    assert not PRODUCTION.exists()
