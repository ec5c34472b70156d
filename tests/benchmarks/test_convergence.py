"""The convergence benchmark in its toy size, on a machine that has only what trains."""

import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from default_params import write_default_params

from benchmarks.convergence import main
from dbp_mae.errors import UserError

ROOT = Path(__file__).parents[2]
ABSENT = (
    "albumentations", "bentoml", "codecarbon", "dvc", "great_expectations", "hydra", "imagehash",
    "dbp_mae.pages.charts", "onnx", "onnxruntime", "prefect", "segmentation_models_pytorch",
)  # fmt: skip


def convergence(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it in `folder` without the packages, its results going there too."""
    code = (
        "import sys, pathlib\n"
        f"sys.modules.update(dict.fromkeys({ABSENT}))\n"  # None: its import fails
        "from benchmarks import convergence, results_file\n"
        "results_file.RESULTS = pathlib.Path('results')\n"
        f"sys.argv[1:] = {list(arguments)}\n"
        "try:\n    convergence.main()\n"
        "except convergence.UserError as error:\n    sys.exit(f'error: {error}')\n"
    )
    write_default_params(folder)
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)


def test_the_toy_runs_and_is_not_repeated(tmp_path: Path) -> None:
    own = "Muon, function-preserving; steps=2; rest_rate=0.25"
    names = ["AdamW", "AdamW, paper", own]
    arguments = [
        "--toy",
        "--name",
        "short",
        "--tuning-seeds",
        "0",
        "--seeds",
        "3",
        "5",
        "--variants",
        *names,
    ]
    first = convergence(tmp_path, *arguments)
    assert first.returncode == 0, first.stderr
    (file,) = (tmp_path / "results").glob("convergence-toy-short-*.json")
    content = json.loads(file.read_text())
    runs = content["comparison"]["measurements"]
    assert {(run["variant"], run["seed"]) for run in runs} == set(product(names, (3, 5)))
    assert "time to AdamW's best" in first.stdout
    (said,) = [text for text in content["headline"]["sentences"] if "trained for" in text]
    assert "trained for 2 steps instead of 4" in said
    steps = {run["variant"]: run["rows"][-1]["step"] for run in runs}
    assert steps == dict.fromkeys(names, 4) | {own: 2}
    rest = {name: way["rest_rate"] for name, way in content["comparison"]["settings"].items()}
    assert rest == dict.fromkeys(names, 0.125) | {own: 0.25}
    assert content["headline"]["energy"] in ("measured", "not measured")
    second = convergence(tmp_path, *arguments)
    assert second.returncode == 0, second.stderr
    assert "measure AdamW" in first.stdout
    assert "measure AdamW" not in second.stdout
    again = json.loads(file.read_text())["comparison"]["measurements"]
    assert again == runs


def test_fine_tuning_without_its_packages_is_one_sentence(tmp_path: Path) -> None:
    done = convergence(tmp_path, "--toy", "--finetune")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: Fine-tuning needs")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "bsdata"], "needs its folder"),
        (["--data", "cats"], "is unknown"),
        (["--data", "imagenet10", "folder"], "is unknown: name one of .*imagenet, wirebond"),
        (["--toy", "--pretrain", "steps"], "--pretrain: 'steps' is not KEY=VALUE"),
        (["--toy", "--variants", "Muon; steps"], "--variants .* KEY=VALUE"),
        (["--toy", "--variants", "Muon;optimizer=adamw"], "optimizer follows from the name"),
        (["--toy", "--variants", "Muon; warmup_steps=3"], "warmup_steps follows from the name"),
        (["--toy", "--pretrain", "seed=1"], "set by the comparison"),
        (["--data", "cats", "--pretrain", "stepz=3"], "stepz"),
        (["--toy", "--pretrain", "warmup_steps=1"], "warmup_steps: each variant has its own"),
        (["--toy", "--pretrain", "optimizer=adamw"], "optimizer: each variant has its own"),
        (["--toy", "--seeds", "0"], "measure with other seeds"),
        (["--toy", "--variants", "SGD"], "is unknown"),
        (["--toy", "--variants", "AdamW", "Muon; steps=0"], "steps"),
    ],
)
def test_bad_arguments_give_one_sentence(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["convergence", *arguments])
    with pytest.raises(UserError, match=said):
        main()
