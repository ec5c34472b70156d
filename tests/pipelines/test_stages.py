"""dvc.yaml against the code: a stage runs again when anything that it imports has changed."""

import ast
from pathlib import Path

import pytest
import yaml
from default_params import default_params

from dbp_mae.errors import UserError
from pipelines import artifacts
from pipelines.stages import render

ROOT = Path(__file__).parents[2]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
# Their effect on a stage is in its params; or they have none on what it makes.
HARMLESS = {
    "dbp_mae/params.py",
    "dbp_mae/energy.py",
    "dbp_mae/environment.py",
    "dbp_mae/errors.py",
    "dbp_mae/files.py",
    "dbp_mae/pretraining/decoder_heads.py",
    "dbp_mae/training/interruption.py",
    "pipelines/artifacts.py",
    "pipelines/ending.py",
    "pipelines/stage.py",
}


def imported(path: Path) -> set[Path]:
    """Return the project's files that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    files = {ROOT / f"{name.replace('.', '/')}.py" for name in names}
    return {file for file in files if file.exists()}


def closure(path: Path) -> set[Path]:
    """Return a file and all of the project's files that it imports, directly or not."""
    seen: set[Path] = set()
    waiting = {path}
    while waiting:
        seen |= waiting
        waiting = set().union(*map(imported, waiting)) - seen
    return seen


@pytest.mark.parametrize("stage", STAGES)
def test_every_import_is_a_dependency(stage: str) -> None:
    dependencies = [Path(dep) for dep in STAGES[stage]["deps"]]
    files = {file.relative_to(ROOT) for file in closure(ROOT / f"pipelines/stages/{stage}.py")}
    missing = [
        str(file)
        for file in files
        if str(file) not in HARMLESS
        and not any(file.is_relative_to(dependency) for dependency in dependencies)
    ]
    assert not missing, sorted(missing)


@pytest.mark.parametrize("stage", STAGES)
def test_dependencies_in_the_repository_exist(stage: str) -> None:
    code = [dep for dep in STAGES[stage]["deps"] if dep.startswith(("dbp_mae", "pipelines"))]
    assert code
    for dependency in code:
        assert (ROOT / dependency).exists(), dependency


def test_artifacts_are_outputs() -> None:
    entries = [out for stage in STAGES.values() for out in stage["outs"] + stage.get("metrics", [])]
    outputs = [Path(entry if isinstance(entry, str) else next(iter(entry))) for entry in entries]
    files = [path for path in vars(artifacts).values() if isinstance(path, Path) and path.suffix]
    assert len(files) > 5
    for file in files:
        assert any(file.is_relative_to(output) for output in outputs), file


def test_the_control_is_made_again_whenever_the_fine_tuning_is() -> None:
    shared = set(STAGES["finetune"]["params"])
    assert shared <= set(STAGES["scratch"]["params"])
    own = {"models/pretrain/encoder.safetensors", "pipelines/stages/finetune.py"}
    assert own < set(STAGES["finetune"]["deps"])
    assert set(STAGES["finetune"]["deps"]) - own <= set(STAGES["scratch"]["deps"])


@pytest.mark.parametrize("key", ["data", "pretrain"])
def test_a_missing_source_is_told_before_anything_is_rendered(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, source = default_params(), tmp_path / "source"
    block = getattr(params, key).model_copy(update={"source": source})
    few = params.render.model_copy(update={"devices": 2, "views": 1, "size": 64})
    params = params.model_copy(update={key: block, "render": few})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"{key}\.source is .*source, which is not there"):
        render.main(params)
    assert not (tmp_path / "data").exists()
    source.mkdir()
    render.main(params)
    assert len(list((tmp_path / "data/wirebond/images").iterdir())) == 2
