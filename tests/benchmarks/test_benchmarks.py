"""Every benchmark runs at toy size, goes on where it was cut off, and writes its figures."""

import argparse
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from default_params import default_params
from PIL import Image

from benchmarks import (
    loader,
    mae_step,
    paper_scale,
    results_file,
    step_cases,
    step_flops,
    step_overhead,
    training_step,
    turns,
)
from benchmarks.run_all import toy_parts
from dbp_mae.data.batches import load
from dbp_mae.data.crops import CropBatches
from dbp_mae.errors import UserError

ARGUMENTS = {part.module: part.arguments for part in toy_parts()}


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "ROOT", tmp_path / "rounds")
    monkeypatch.setattr(results_file, "RESULTS", tmp_path)
    for module in (training_step, loader):
        monkeypatch.setattr(module, "load_params", default_params)


def headline(
    module: object, arguments: list[str], folder: Path, patch: pytest.MonkeyPatch
) -> dict[str, float]:
    patch.setattr("sys.argv", ["benchmark", *arguments])
    module.main()
    (file,) = folder.glob("*.json")
    content = json.loads(file.read_text())
    assert content["environment"]["torch"] == torch.__version__.partition("+")[0]
    assert content["rows"]
    return content["headline"]


def test_a_turn_holds_one_update_of_the_default() -> None:
    assert default_params().pretrain.decorrelation.every == training_step.CYCLE


def test_step_overhead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [*ARGUMENTS["benchmarks.step_overhead"], "--optimizers", "muon"]
    figures = headline(step_overhead, arguments, tmp_path, monkeypatch)
    assert set(figures) == {
        f"nano, muon, light, {variant}" for variant in step_cases.VARIANTS if variant != "untouched"
    }
    assert all(ratio > 0 for ratio in figures.values())

    def refuse(*_: object) -> Callable[[], object]:
        raise AssertionError("measured again")

    monkeypatch.setattr(step_overhead, "stepper", refuse)
    assert headline(step_overhead, arguments, tmp_path, monkeypatch) == figures


def test_step_flops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = ["--models", "nano", "--image", "32", "--patch", "8", "--channels", "1"]
    figures = headline(step_flops, [*sizes, "--decoders", "light"], tmp_path, monkeypatch)
    every_step, default = (
        figures[f"nano, adamw, light, function-preserving{rest}"]
        for rest in ("", f", every {training_step.CYCLE}")
    )
    assert 1 < default < every_step


def test_rounds_go_on_where_they_were_cut_off() -> None:
    acts: list[str] = []

    def enter(stop: int) -> Callable[[], turns.Contestants]:
        def act(name: str) -> None:
            acts.append(name)
            if len(acts) == stop:
                raise KeyboardInterrupt

        return lambda: {name: lambda name=name: act(name) for name in ("a", "b")}

    with pytest.raises(KeyboardInterrupt):
        turns.take_turns("test", {"size": 1}, enter(stop=7), rounds=4, warmup=1)
    assert acts == list("ababbaa")  # the warm-up, two whole rounds, half a one
    acts.clear()
    times = turns.take_turns("test", {"size": 1}, enter(stop=0), rounds=4, warmup=1)
    assert acts == list("ababba")  # the warm-up and the two missing rounds
    assert times.shape == (4, 2)
    acts.clear()
    turns.take_turns("test", {"size": 2}, enter(stop=0), rounds=1, warmup=0)
    assert acts == ["a", "b"]


def test_what_happens_in_one_call_of_four_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    calls = itertools.count()

    def act(seconds: Callable[[], float]) -> None:
        nonlocal now
        now += seconds()

    monkeypatch.setattr(turns.time, "perf_counter", lambda: now)
    contestants = {
        "even": lambda: act(lambda: 1.0),
        "jerky": lambda: act(lambda: 5.0 if next(calls) % 4 == 0 else 1.0),
    }
    times = turns.take_turns("jerk", {}, lambda: contestants, rounds=5, warmup=1, calls=4)
    assert turns.ratios(times, "even").loc["jerky", "median"] == pytest.approx(2.0)


def test_ratios_are_those_of_each_round() -> None:
    times = pd.DataFrame({"base": [1.0, 2.0, 4.0], "other": [2.0, 2.0, 12.0]})
    spread = turns.ratios(times, "base")
    assert spread.loc["other"].to_dict() == {"median": 2.0, "min": 1.0, "max": 3.0}


def test_mae_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = headline(mae_step, ARGUMENTS["benchmarks.mae_step"], tmp_path, monkeypatch)
    assert set(figures) == {"ours, eager", "ours, decorrelated, eager"}
    (file,) = tmp_path.glob("*.json")
    rows = json.loads(file.read_text())["rows"]
    contestants = [row["contestant"] for row in rows]
    assert (mae_step.WRITTEN_OUT in contestants) != torch.cuda.is_available()
    for row in rows:
        assert row["lowest"] <= row["times_theirs"] <= row["highest"]


@pytest.mark.parametrize("title", ["ImageNet", "ADE20K"])
def test_paper_scale(title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper_scale, "FILES", 8)
    (arguments,) = (part.arguments for part in toy_parts() if part.title == title)
    figures = headline(paper_scale, arguments, tmp_path, monkeypatch)
    assert [name.rpartition(", ")[2] for name in figures] == ["gib", "hours", "kwh"]
    assert all(value > 0 for name, value in figures.items() if not name.endswith("gib"))


@pytest.mark.parametrize(
    ("module", "arguments", "said"),
    [
        (step_overhead, ["--rounds", "0"], "'0' is no whole number from 1"),
        (paper_scale, ["imagenet10", "--steps", "0"], "'0' is no whole number from 1"),
        (paper_scale, ["imagenet10", "--batches", "8", "8"], "name two sizes"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_measured(
    module: Any,
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["benchmark", *arguments])
    with pytest.raises((SystemExit, UserError)) as caught:
        module.main()
    assert said in capsys.readouterr().err + str(caught.value)


def test_other_function_is_refused() -> None:
    parser = argparse.ArgumentParser()
    training_step.add_arguments(parser)
    arguments = parser.parse_args(["--image", "32", "--patch", "8", "--batch", "4"])
    params = training_step.step_params(arguments, model="nano")
    ours = training_step.pretraining(training_step.with_update(params, "none"), 3).plain_model
    theirs = mae_step.create_theirs(ours, image_size=32)
    batch = training_step.random_batch(params, 3)
    mae_step.check_same_function(ours, theirs, batch)
    with torch.no_grad():
        ours.decoder_pred.weight.mul_(1.1)
    with pytest.raises(UserError, match="do not compute the same"):
        mae_step.check_same_function(ours, theirs, batch)


def test_missing_transformers_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(UserError, match="transformers is not installed"):
        mae_step.create_theirs(None, image_size=32)


def test_loader_on_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.png", "b.jpg", "c.png"):
        Image.effect_noise((96, 80), 40).save(folder / name)
    arguments = [*ARGUMENTS["benchmarks.loader"], "--data", str(folder), "--workers", "0"]
    figures = headline(loader, arguments, tmp_path, monkeypatch)
    assert len(figures) == 2
    assert all(0 < share < 1 for share in figures.values())
    assert headline(loader, arguments, tmp_path, monkeypatch) == figures  # kept, not measured again


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_keeps_images_only_where_it_says_so(tmp_path: Path, workers: int) -> None:
    """Where processes load, before they start: they share it."""
    Image.new("L", (64, 64)).save(tmp_path / "a.png")
    small = {"steps": 4, "batch": 4, "crop": 32, "workers": workers}
    params = default_params().pretrain.model_copy(update=small)
    for keep in (True, False):
        images = loader.open_images(tmp_path, channels=1, keep=keep)
        load(CropBatches(images, params, seed=0), range(params.steps), workers)
        assert images[0].shape == (64, 64, 1)
        assert (0 in images.kept) == keep


def test_loader_may_have_more_workers_than_rounds(tmp_path: Path) -> None:
    Image.new("L", (64, 64)).save(tmp_path / "a.png")
    small = {"steps": 1, "batch": 4, "crop": 32, "workers": 2}
    params = default_params().pretrain.model_copy(update=small)
    images = loader.open_images(tmp_path, channels=1, keep=True)
    assert loader.loading_rate(CropBatches(images, params, seed=0), params) > 0


def test_loader_refuses_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no image"):
        loader.open_images(tmp_path, channels=1, keep=True)


def test_bottleneck() -> None:
    assert loader.bottleneck(100, 50, workers=2) == "step"
    assert loader.bottleneck(50, 100, workers=2) == "loader"
    assert loader.bottleneck(50, 100, workers=0) == "both, in turns"
