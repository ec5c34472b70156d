"""The command that compares: its files, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from made_results import clear_win, results
from small_plan import plan

from dbp_mae.comparison.subject import Subject
from dbp_mae.errors import UserError
from dbp_mae.params import Params
from pipelines import compare as command


@pytest.fixture
def workspace(
    params: Params, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A project's folder with the data ingested."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(subject.folder)
    text = yaml.safe_dump(json.loads(params.model_dump_json(by_alias=True)))
    (tmp_path / "params.yaml").write_text(text)
    return tmp_path


def write_plan(folder: Path, **changes: Any) -> Path:
    path = folder / "comparison.yaml"
    path.write_text(yaml.safe_dump(plan().model_dump() | changes))
    return path


def test_the_command_writes_page_and_figures(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command.main(write_plan(workspace))
    lines = capsys.readouterr().out.splitlines()
    assert sum("measure" in line and "left" in line for line in lines) == 9
    figures = json.loads((workspace / "reports/comparison/comparison.json").read_text())
    assert figures["environment"]["torch"] == torch.__version__.partition("+")[0]
    assert figures["headline"]["sentences"][0] in lines
    html = (workspace / "reports/comparison/index.html").read_text()
    for name in plan().variants:
        assert name in html


@pytest.mark.usefixtures("workspace")
def test_a_finished_page_is_not_replaced_by_the_beginning_of_its_repetition() -> None:
    whole = results(clear_win())
    command.write(whole)
    finished = command.FIGURES.read_text()
    command.write(whole.model_copy(update={"measurements": whole.measurements[:1]}))
    assert command.FIGURES.read_text() == finished
    longer = {
        name: params.model_copy(update={"steps": 600}) for name, params in whole.settings.items()
    }
    command.write(whole.model_copy(update={"measurements": [], "settings": longer}))
    assert json.loads(command.FIGURES.read_text())["measurements"] == []


def test_images_validated_under_other_values_are_refused(workspace: Path) -> None:
    values = yaml.safe_load((workspace / "params.yaml").read_text())
    made_under = {"data.classes": values["data"]["classes"], "validate": values["validate"]}
    lock = {"stages": {"validate": {"params": {"params.yaml": made_under}}}}
    (workspace / "dvc.lock").write_text(yaml.safe_dump(lock))
    command.check_validated()
    lock["stages"]["ingest"] = {"params": {"params.yaml": {"data": {"source": "data/raw/other"}}}}
    (workspace / "dvc.lock").write_text(yaml.safe_dump(lock))
    with pytest.raises(UserError, match=r"under another data than .*`dvc repro validate`"):
        command.main(write_plan(workspace))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"baselin": "plain"}, "baselin: there is no such key"),
        ({"baseline": "nobody"}, "'nobody', which is not among variants"),
        ({"seeds": [0, 1]}, "measure with other seeds"),
        ({"seeds": [1, 1]}, "seeds: [1, 1] names one seed twice: name each once"),
        ({"tuning": {"seeds": [0, 0], "extensions": 0}}, "tuning.seeds: [0, 0] names one seed twice"),
        ({"finetune": {"seeds": [0, 0]}}, "finetune.seeds: [0, 0] names one seed twice: name each once"),
        ({"seeds": []}, "seeds"),
        ({"pretrain": {"learning_rate": 1.0}}, "set by the comparison"),
        ({"pretrain": {"step": 5}}, "step: there is no such key"),
        ({"pretrain": {"devices": 2}}, "`devices: 1` under pretrain"),
        ({"finetune": {"seeds": [0], "finetune": {"tile": 33}}}, "multiple of pretrain.patch"),
        ({"baseline": "preserving"}, "baseline 'preserving' is decorrelated"),
        ({"variants": {"plain": {"learning_rates": [0.1], "pretrain": {"crop": 32}},
                       "b": {"learning_rates": [0.1]}}}, "pretrain.crop is none of"),
        ({"variants": {"plain": {"learning_rates": [0.1], "pretrain": {"optimizer": "sgd"}},
                       "b": {"learning_rates": [0.1]}}}, "variant 'plain'"),
        ({"variants": {"plain": {"learning_rates": [0.1], "warmup": 0.4,
                                 "pretrain": {"warmup_steps": 2}},
                       "b": {"learning_rates": [0.1]}}}, "both given"),
        ({"variants": {"plain": {"learning_rates": [0.1], "warmup": 0.4,
                                 "pretrain": {"steps": "1e3"}},
                       "b": {"learning_rates": [0.1]}}}, "variant 'plain'"),
    ],
)  # fmt: skip
def test_a_bad_file_gives_one_sentence(changes: dict[str, Any], said: str, workspace: Path) -> None:
    with pytest.raises(UserError) as caught:
        command.main(write_plan(workspace, **changes))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
