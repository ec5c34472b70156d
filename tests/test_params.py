"""params.yaml, and its composition from conf/."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dbp_mae.errors import UserError
from dbp_mae.params import load_params
from pipelines.compose import compose

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
RECIPES = sorted(path.stem for path in (CONF / "recipe").glob("*.yaml"))


@pytest.fixture
def raw() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "params.yaml").read_text())


def test_the_committed_parameters_are_the_default_composition(
    raw: dict[str, Any], tmp_path: Path
) -> None:
    compose(tmp_path / "params.yaml", [], CONF)
    composed = yaml.safe_load((tmp_path / "params.yaml").read_text())
    assert composed == raw, "run `make params`, and commit params.yaml with conf/"


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_composes_to_valid_parameters(recipe: str, tmp_path: Path) -> None:
    output = tmp_path / "params.yaml"
    compose(output, [f"recipe={recipe}", "pretrain.seed=7"], CONF)
    params = load_params(output)
    assert params.pretrain.seed == 7
    assert params.pretrain.source in (params.data.source, Path("models/imagenet"))


@pytest.mark.parametrize(
    "override", ["recipe=no-such-recipe", "pretrain.stepps=7", "pretrain.steps=="]
)
def test_an_unknown_recipe_or_key_is_named(override: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not compose with"):
        compose(tmp_path / "params.yaml", [override], CONF)
    assert not (tmp_path / "params.yaml").exists()


@pytest.mark.parametrize("text", ["data:\n\tchannels: 1\n", "data:\n  seed: ${nope}\n"])
def test_a_recipe_that_is_no_yaml_is_one_sentence(text: str, tmp_path: Path) -> None:
    conf = shutil.copytree(CONF, tmp_path / "conf")
    (conf / "recipe/mine.yaml").write_text(f"# @package _global_\n{text}")
    with pytest.raises(UserError, match=r"does not compose with \['recipe=mine'\]") as caught:
        compose(tmp_path / "params.yaml", ["recipe=mine"], conf)
    assert "\n" not in str(caught.value)


def test_a_recipe_without_its_first_line_is_told_of_it(tmp_path: Path) -> None:
    conf = shutil.copytree(CONF, tmp_path / "conf")
    (conf / "recipe/mine.yaml").write_text("data:\n  classes: [pit]\n")
    with pytest.raises(
        UserError, match=r"begin the recipe's file with the line `# @package _global_`"
    ):
        compose(tmp_path / "params.yaml", ["recipe=mine"], conf)


def test_a_value_that_cannot_be_run_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    output = tmp_path / "params.yaml"
    compose(output, [], CONF)
    before = output.read_text()
    with pytest.raises(UserError, match=r"does not fit: pretrain\.steps: .*integer"):
        compose(output, ["pretrain.steps=abc"], CONF)
    assert output.read_text() == before


def test_dvc_experiments_take_recipes(tmp_path: Path) -> None:
    def run(*command: str) -> None:
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    git = ("git", "-c", "user.name=tester", "-c", "user.email=tester@example.com")
    dvc = (sys.executable, "-m", "dvc")
    run(*git, "init", "--quiet")
    run(*dvc, "init", "--quiet")
    shutil.copy(ROOT / ".dvc/config", tmp_path / ".dvc/config")
    shutil.copytree(CONF, tmp_path / "conf")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    stage = {"cmd": "cat ${data.source}/name > out.txt", "deps": ["${data.source}"]}
    stages = {"read": stage | {"params": ["data"], "outs": ["out.txt"]}}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    source = tmp_path / "elsewhere"
    source.mkdir()
    (source / "name").write_text("the images")
    (tmp_path / ".gitignore").write_text("/elsewhere\n")
    run(*git, "add", ".")
    run(*git, "commit", "--quiet", "--message=first")

    run(*dvc, "exp", "run", "-S", "recipe=bsdata", "-S", f"data.source={source}")
    params = load_params(tmp_path / "params.yaml")
    assert (params.data.source, params.data.classes) == (source, ["Pitting"])
    assert (tmp_path / "out.txt").read_text() == "the images"


def write(folder: Path, raw: dict[str, Any]) -> Path:
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


@pytest.mark.parametrize(
    ("block", "change", "words"),
    [
        ("pretrain", {"stepps": 7}, "pretrain.stepps"),
        ("pretrain", {"steps": 0}, "pretrain.steps"),
        ("pretrain", {"crop": 65}, "multiple of patch"),
        ("pretrain", {"crop": 4}, r"crop \(4\) must be a multiple of patch \(8\)"),
        ("pretrain", {"scale": [0.5, 0.2]}, "begin with the smaller share"),
        ("pretrain", {"accumulate": 3}, "multiple of accumulate"),
        ("pretrain", {"devices": 0}, "pretrain.devices"),
        ("pretrain", {"seed": 2**32}, "pretrain.seed: .* less than 4294967296"),
        (
            "decorrelation",
            {"eps": 2.0, "total_eps": None},
            r"decorrelation: .*eps \(2.0\) must be below 2",
        ),
        ("decorrelation", {"eps": 1.5, "total_eps": None, "kappa": 0.0}, "must be below 1"),
        ("decorrelation", {"eps": 0.01}, "either eps or total_eps"),
        ("decorrelation", {"total_eps": None}, "either eps or total_eps"),
        ("decorrelation", {"kappa": 1.5}, "decorrelation.kappa"),
        ("decorrelation", {"sample": 0.0}, "decorrelation.sample"),
        ("decorrelation", {"layers": ["qkv", "fc3"]}, "decorrelation.layers.1: .*'fc2'"),
        ("decorrelation", {"layers": []}, "decorrelation.layers"),
        ("data", {"channels": 2}, "data.channels"),
        ("data", {"splits": {"train": "a"}}, "data.splits"),
        (
            "data",
            {"splits": {"val": "a", "test": "a/b"}},
            r"'a' \(val\) and 'a/b' \(test\) overlap",
        ),
        ("data", {"classes": ["a", " "], "defects": []}, "classes has the name ' '"),
        ("data", {"classes": ["a|b"], "defects": []}, r"classes has the name 'a\|b'"),
        ("data", {"defects": ["dent"]}, "dent"),
        ("data", {"val_share": 0.9}, "below 1"),
        ("finetune", {"tile": 33}, "finetune.tile"),
        (
            "export",
            {"overlap": 49},
            r"export.overlap \(49\) must be at most half of finetune.tile \(96",
        ),
        ("emissions", {"country": "Germany"}, "emissions.country"),
    ],
)
def test_a_wrong_value_is_named_in_one_sentence(
    raw: dict[str, Any], tmp_path: Path, block: str, change: dict[str, Any], words: str
) -> None:
    holder = raw["pretrain"] if block == "decorrelation" else raw
    holder[block] |= change
    with pytest.raises(UserError, match=words) as caught:
        load_params(write(tmp_path, raw))
    assert "\n" not in str(caught.value)
    assert "Value error" not in str(caught.value)


def test_a_missing_key_or_file_is_named(raw: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is missing"):
        load_params(tmp_path / "params.yaml")
    del raw["evaluate"]
    raw["data"]["defects"] = "???"
    both = r"data\.defects: is missing: name it in the recipe; evaluate: is missing"
    with pytest.raises(UserError, match=both):
        load_params(write(tmp_path, raw))
    (tmp_path / "params.yaml").write_text("data: [")
    with pytest.raises(UserError, match="not valid YAML"):
        load_params(tmp_path / "params.yaml")
