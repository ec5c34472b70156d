"""The comparison itself, on real images: fair, resumable, and with an untouched baseline."""

from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from small_plan import PLAIN, PRESERVING, plan, settings

from dbp_mae.comparison.compare import compare
from dbp_mae.comparison.findings import sentences
from dbp_mae.comparison.page import page
from dbp_mae.comparison.results import Results
from dbp_mae.comparison.subject import Subject
from dbp_mae.comparison.tuning import Tuning
from dbp_mae.errors import UserError
from dbp_mae.params import Params
from dbp_mae.pretraining.images import PretrainingImages
from dbp_mae.pretraining.run import create_run
from dbp_mae.training.checkpoint import ROOT


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the comparison's lock out of the repository."""
    monkeypatch.chdir(tmp_path)


def finished(steps: Iterator[Results]) -> Results:
    *_, last = steps
    return last


def losses(results: Results) -> dict[tuple[str, int], list[float]]:
    return {
        (run.variant, run.seed): [row.val_loss for row in run.rows] for run in results.measurements
    }


@pytest.fixture(scope="module")
def whole(params: Params, subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> Results:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("whole"))
        return finished(compare(plan(), params, subject, print))


def test_equal_settings_give_equal_losses(whole: Results) -> None:
    found = losses(whole)
    assert found["plain", 1] == found["twin", 1]
    assert found["plain", 1] != found["preserving", 1]
    assert [row.step for row in whole.measurements[0].rows] == [2, 4, 6]


def test_all_variants_see_the_same_batches_and_begin_alike(
    params: Params, images: PretrainingImages
) -> None:
    plain, preserving = (settings(params, name) for name in ("plain", "preserving"))
    for step in range(3):
        for one, other in zip(
            images.batches(plain)[step], images.batches(preserving)[step], strict=True
        ):
            assert torch.equal(one, other)
    weights, others = (
        {
            name.replace("parametrizations.weight.original", "weight"): weight
            for name, weight in create_run(images, variant).plain_model.named_parameters()
        }
        for variant in (plain, preserving)
    )
    assert weights.keys() == others.keys()
    assert all(torch.equal(weight, others[name]) for name, weight in weights.items())
    decorrelation = preserving.decorrelation
    blocks = decorrelation.model_copy(update={"layers": decorrelation.block_layers})
    within = preserving.model_copy(update={"decorrelation": blocks})
    with torch.no_grad():
        first, second = (
            create_run(images, variant.model_copy(update={"averaging": 0.0})).validate()["val_loss"]
            for variant in (plain, within)
        )
    assert first == pytest.approx(second, rel=1e-5)


def test_variants_are_tuned_then_take_turns(
    params: Params, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    variants = {
        name: {"learning_rates": [1e-9, 1e-3], "pretrain": PLAIN} for name in ("plain", "twin")
    }
    said: list[str] = []
    changes = {"tuning": {"seeds": [0, 4], "extensions": 0}, "seeds": [1, 2]}
    results = finished(compare(plan(variants=variants, **changes), params, subject, said.append))
    turns = [line.split(",")[0].split()[-1] for line in said if line.startswith("measure")]
    first, second = ["plain", "twin"], ["twin", "plain"]
    assert turns == [*first, *second, *first, *second, *first, *second]
    for name, tuning in results.tuning.items():
        assert [trial.learning_rate for trial in tuning.trials] == [1e-9, 1e-3]
        assert all(len(set(trial.losses)) == 2 for trial in tuning.trials), "two seeds a rate"
        assert tuning.best == 1e-3
        assert {run.learning_rate for run in results.runs(name)} == {1e-3}


@pytest.mark.usefixtures("own_folder")
def test_level_rates_of_a_plain_variant_are_both_measured(
    params: Params, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tuning, "level", property(lambda tuning: tuning.trials[0].learning_rate))
    variants = {
        "plain": {"learning_rates": [5e-4, 1e-3], "pretrain": PLAIN},
        "preserving": {"learning_rates": [5e-4, 1e-3], "pretrain": PRESERVING},
    }
    said: list[str] = []
    results = finished(compare(plan(variants=variants), params, subject, said.append))
    rates = {name: {run.learning_rate for run in results.runs(name)} for name in results.settings}
    assert rates == {"plain": {1e-3}, "plain at 0.0005": {5e-4}, "preserving": {1e-3}}
    assert results.plain == ["plain", "plain at 0.0005"]
    assert said[-1].endswith("done, nothing left)")
    found = " ".join(sentences(results))
    assert "of plain's 0.001 and 0.0005: both were measured." in found
    assert "plain at 0.0005" in page(results, date(2026, 1, 1))


def test_every_seed_is_validated_on_the_same_crops(
    params: Params, images: PretrainingImages
) -> None:
    chosen = settings(params, "plain")
    pairs = [
        create_run(images, chosen.model_copy(update={"seed": seed})).validation for seed in (1, 2)
    ]
    assert all(torch.equal(one, other) for one, other in zip(*pairs, strict=True))


def test_estimated_energy_is_power_times_time(whole: Results) -> None:
    if whole.energy.kind != "estimated":
        pytest.skip("this machine has a counter")
    for run in whole.measurements:
        for row in run.rows:
            assert row.joules == pytest.approx(row.seconds * (whole.energy.watts or 0))


class Killed(Exception):
    """Stands for the power cut."""


def killing(said: list[str], after: int) -> Callable[[str], None]:
    """Return an announcer that keeps the lines in `said`, and kills after so many."""

    def announce(line: str) -> None:
        said.append(line)
        if len(said) == after:
            raise Killed

    return announce


@pytest.mark.parametrize("lines", [2, 11])
def test_a_killed_comparison_goes_on_and_yields_the_same_losses(
    lines: int,
    whole: Results,
    params: Params,
    subject: Subject,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Killed):
        finished(compare(plan(), params, subject, killing([], lines)))
    resumed: list[str] = []
    results = finished(compare(plan(), params, subject, resumed.append))
    assert losses(results) == losses(whole)
    assert results.tuning == whole.tuning
    assert 15 <= lines + len(resumed) <= 17  # 9 slices for 2 x 3 runs, those of equal runs once
    assert sum(line.startswith("measure") for line in resumed) % 3 == 0, "a round is taken whole"
    again: list[str] = []
    assert losses(finished(compare(plan(), params, subject, again.append))) == losses(whole)
    assert again == []


def test_runs_at_different_rounds_begin_anew(
    params: Params, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a kill within the saving of a round would leave."""
    monkeypatch.chdir(tmp_path)
    finished(compare(plan(), params, subject, print))
    kept = sorted(ROOT.glob("compare-seed-1-*/*/measurement.json"))
    assert len(kept) == 3
    kept[1].unlink()
    again: list[str] = []
    finished(compare(plan(), params, subject, again.append))
    assert sum(line.startswith("measure") for line in again) == 9


@pytest.mark.parametrize(
    ("decorrelation", "said"),
    [
        (
            {"update": "paper", "eps": 1.9, "total_eps": None, "every": 1},
            r"eps \(1\.9\) is too large",
        ),
        ({"update": "paper", "sample": 0.0001}, r"decorrelation\.sample"),
    ],
)
def test_a_variant_that_cannot_be_trained_is_refused_before_any_is(
    decorrelation: dict[str, Any],
    said: str,
    params: Params,
    subject: Subject,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    variants = {
        "plain": {"learning_rates": [0.001], "pretrain": PLAIN},
        "wild": {"learning_rates": [0.001], "pretrain": {"decorrelation": decorrelation}},
    }
    lines: list[str] = []
    with pytest.raises(UserError, match=said):
        finished(compare(plan(variants=variants), params, subject, lines.append))
    assert not lines


def test_a_variant_that_diverges_does_not_stop_the_others(
    params: Params, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    variants = {
        "plain": {"learning_rates": [0.001], "pretrain": PLAIN},
        "wild": {"learning_rates": [1e30], "pretrain": PLAIN},
    }
    tuning = {"seeds": [0, 4], "extensions": 0}
    results = finished(compare(plan(variants=variants, tuning=tuning), params, subject, print))
    assert results.tuning["wild"].trials[0].losses == [None], "no second seed is tried"
    assert len(results.tuning["plain"].trials[0].losses) == 2
    assert not results.tuning["wild"].bracketed
    assert [run.diverged for run in results.measurements] == [False, True]
    assert len(results.measurements[0].rows) == 3


def test_a_kill_among_variants_that_end_at_different_rounds(
    params: Params, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variants = {
        "plain": {"learning_rates": [0.001], "pretrain": PLAIN},
        "short": {"learning_rates": [0.001], "pretrain": {**PLAIN, "steps": 4}},
        "wild": {"learning_rates": [1e30], "pretrain": PLAIN},
    }
    uneven = plan(variants=variants)

    def compared(folder: Path, kill_after: int) -> tuple[Results | None, list[str]]:
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        said: list[str] = []
        try:
            return finished(compare(uneven, params, subject, killing(said, kill_after))), said
        except Killed:
            return None, said

    whole, lines = compared(tmp_path / "whole", kill_after=-1)
    assert whole
    measured = [line.split()[1] for line in lines if line.startswith("measure")]
    assert measured == ["plain,", "short,", "wild,", "short,", "plain,", "plain,"]
    for kill_after in (len(lines) - 4, len(lines) - 2, len(lines)):
        folder = tmp_path / str(kill_after)
        assert compared(folder, kill_after)[0] is None
        resumed, _ = compared(folder, kill_after=-1)
        assert resumed
        assert losses(resumed) == losses(whole)
        assert [run.diverged for run in resumed.measurements] == [False, False, True]
        assert len(list(folder.glob(".checkpoints/compare-seed-*/*/encoder.safetensors"))) == 2


def test_the_encoders_are_judged_on_held_out_images(
    params: Params, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    variants = {
        name: {"learning_rates": [0.001], "pretrain": changes}
        for name, changes in (("plain", PLAIN), ("preserving", PRESERVING))
    }
    tuned = plan(variants=variants, finetune={"seeds": [5]})
    results = finished(compare(tuned, params, subject, print))
    assert [(item.variant, item.finetune_seed) for item in results.finetuned] == [
        ("plain", 5),
        ("preserving", 5),
    ]
    assert all(0 < item.miou < 1 for item in results.finetuned if item.miou is not None)
    assert any(item.miou is not None for item in results.finetuned)
    again: list[str] = []
    assert finished(compare(tuned, params, subject, again.append)).finetuned == results.finetuned
    assert again == []


@pytest.mark.usefixtures("own_folder")
def test_no_image_of_a_split_is_one_sentence(params: Params, subject: Subject) -> None:
    frame: pd.DataFrame = subject.frame.assign(split="train")
    with pytest.raises(UserError, match="No image is in the split val"):
        finished(compare(plan(), params, Subject(subject.manifest, frame, subject.folder), print))


@pytest.mark.usefixtures("own_folder")
def test_what_cannot_be_fine_tuned_is_refused_before_training(
    params: Params, subject: Subject
) -> None:
    frame: pd.DataFrame = subject.frame.assign(label_state="unlabelled")
    bare, said = Subject(subject.manifest, frame, subject.folder), list[str]()
    with pytest.raises(UserError, match="none is in train, val, test"):
        finished(compare(plan(finetune={"seeds": [0]}), params, bare, said.append))
    assert not said
