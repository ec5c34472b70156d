"""Time to a target, on curves whose answer is known."""

import json
import math
import re
from datetime import date

import pytest
from made_results import clear_win, measurement, plan, results, with_finetuning

from dbp_mae.comparison.findings import headline, sentences, share, table
from dbp_mae.comparison.page import page
from dbp_mae.comparison.results import (
    EnergySource,
    Finetuned,
    Measurement,
    Results,
    Spread,
    Trial,
)
from dbp_mae.pages.formatting import UNKNOWN


def test_the_target_is_the_first_validation_at_or_below_it() -> None:
    run = measurement("AdamW", 1, slope=0.001)
    assert run.best is not None
    assert run.best.step == 100
    row = run.first_at(1 - 0.001 * 30)
    assert row is not None
    assert row.step == 30
    between = run.first_at(1 - 0.001 * 31)
    assert between is not None
    assert between.step == 40
    assert run.first_at(0.1) is None


def test_twice_as_steep_takes_half() -> None:
    found = results(clear_win())
    for quantity in ("step", "seconds", "joules"):
        assert found.ratio("Muon", "AdamW", quantity).values == pytest.approx([0.5] * 3)
    assert found.ratio("AdamW", "AdamW", "seconds").values == (1, 1, 1)
    # 1 - 0.002 * 100 is first reached by 0.004 a step at step 50
    assert found.ratio("Muon, function-preserving", "Muon", "step").values == (0.5, 0.5, 0.5)
    assert found.rival == "Muon"


def test_seeds_are_compared_in_pairs() -> None:
    runs = [
        run
        for seed, pace in ((1, 0.5), (2, 5.0))  # the machine was slow when seed 2 ran
        for run in (
            measurement("AdamW", seed, 0.001, pace),
            measurement("Muon", seed, 0.002, pace),
        )
    ]
    assert results(runs).ratio("Muon", "AdamW", "seconds").values == pytest.approx([0.5, 0.5])


def test_a_slower_step_counts_in_time_and_not_in_steps() -> None:
    found = results(
        [measurement("AdamW", 1, 0.001), measurement("AdamW, paper", 1, 0.002, pace=0.75)]
    )
    assert found.ratio("AdamW, paper", "AdamW", "step").values == pytest.approx([0.5])
    assert found.ratio("AdamW, paper", "AdamW", "seconds").values == pytest.approx([0.75])
    assert found.step_cost("AdamW, paper", "AdamW").values == pytest.approx([1.5])


def test_the_target_is_the_best_loss_not_the_last() -> None:
    run = measurement("AdamW", 1, slope=0.001)
    rows = [*run.rows[:5], *(row.model_copy(update={"val_loss": 0.99}) for row in run.rows[5:])]
    runs = [run.model_copy(update={"rows": rows}), measurement("Muon", 1, slope=0.002)]
    assert results(runs).ratio("Muon", "AdamW", "step").values == (30 / 50,)


def drifting(variant: str, slope: float, pace: float) -> Measurement:
    """Return a run on a machine that gets slower, to a third of its speed."""
    run = measurement(variant, 1, slope, pace)
    rows = [
        row.model_copy(update={"seconds": row.seconds * (1 + row.step / 50)}) for row in run.rows
    ]
    return run.model_copy(update={"rows": rows})


def test_a_drifting_machine_is_told_and_does_not_tell_in_the_cost_of_a_step() -> None:
    found = results(
        [drifting("AdamW", 0.001, 0.5), drifting("Muon, function-preserving", 0.002, 0.6)]
    )
    name = "Muon, function-preserving"
    assert found.step_cost(name, "AdamW").values == pytest.approx([1.2])
    assert found.steadied_ratio(name, "AdamW").values == pytest.approx([0.5 * 1.2])
    assert found.ratio(name, "AdamW", "seconds").values == pytest.approx([0.5 * 1.2 * 2 / 3])
    assert found.drift == pytest.approx(2.625)
    said = " ".join(sentences(found))
    assert "speed changed by a factor of" in said
    assert f"that of {name} 0.60 (one seed) of AdamW's" in said
    assert "speed changed" not in " ".join(sentences(results(clear_win())))


@pytest.mark.parametrize("values", [(0.5, math.nan), (math.nan, 0.5)])
def test_what_is_partly_unknown_is_unknown(values: tuple[float, float]) -> None:
    assert share(Spread(values)) == UNKNOWN


def test_never_is_told_apart_from_late() -> None:
    runs = clear_win()
    runs[2] = measurement("AdamW, paper", 1, 0.0001)
    spread = results(runs).ratio("AdamW, paper", "AdamW", "seconds")
    assert spread.values[0] == math.inf
    assert spread.geometric_mean is None
    assert share(spread) == "0.50 to never (2 of 3 seeds)"
    assert share(Spread((math.inf, math.inf))) == "never"


def test_a_diverged_run_reaches_nothing() -> None:
    runs = clear_win()
    runs[3] = measurement("Muon, function-preserving", 1, 0.004, diverged=True)
    found = results(runs)
    assert found.ratio("Muon, function-preserving", "AdamW", "seconds").reached == 2
    assert found.best_loss("Muon, function-preserving").values[0] == math.inf


def test_a_diverged_baseline_sets_no_target() -> None:
    runs = clear_win()
    runs[0] = measurement("AdamW", 1, 0.001, diverged=True)
    assert len(results(runs).ratio("Muon", "AdamW", "seconds").values) == 2


def test_the_mean_of_ratios_is_geometric() -> None:
    assert Spread((0.5, 2.0)).geometric_mean == pytest.approx(1.0)


def test_the_headline_quotes_ratio_and_spread() -> None:
    said = sentences(results(clear_win()))
    assert said[0].startswith(
        "Muon, function-preserving, of 2 decorrelated variants the best in tuning, reached"
    )
    assert "tuned AdamW's best loss in 0.30 (0.30 to 0.30) of its time" in said[0]
    assert "0.30 (0.30 to 0.30) of its energy" in said[0]
    assert "on your 1\u202f234 images" in said[0]
    assert "tuned Muon's best loss in 0.50" in said[1]
    assert "decorrelation pays on these data" in said[2]


def test_a_rival_that_is_as_good_is_not_hidden() -> None:
    """Decorrelation beats AdamW, but plain Muon beats it."""
    slopes = {"AdamW": 1, "Muon": 4, "AdamW, paper": 2, "Muon, function-preserving": 3}
    runs = [
        measurement(name, seed, slope / 1000)
        for seed in (1, 2, 3)
        for name, slope in slopes.items()
    ]
    said = " ".join(sentences(results(runs)))
    assert "of its time" in said
    assert "reached tuned Muon's best loss in 0 of 3 seeds" in said
    assert "does not pay" in said


def test_the_candidate_is_the_tuning_s_not_the_luckiest() -> None:
    """A variant that only the measured seeds favour does not speak for decorrelation."""
    slopes = {"AdamW": 1, "Muon": 2, "AdamW, paper": 4, "Muon, function-preserving": 1}
    runs = [measurement(name, 1, slope / 1000) for name, slope in slopes.items()]
    assert results(runs).candidate == "Muon, function-preserving"
    assert "does not pay" in " ".join(sentences(results(runs)))


def test_a_rate_is_judged_by_its_mean_over_the_tuning_s_seeds() -> None:
    assert Trial(learning_rate=1e-3, losses=[0.25, 0.75]).loss == 0.5
    assert Trial(learning_rate=1e-3, losses=[0.25, None]).loss == math.inf


def shortened(found: Results, name: str) -> Results:
    """Return results in which a variant had half of the steps."""
    short = found.settings[name].model_copy(update={"steps": 50})
    return found.model_copy(update={"settings": found.settings | {name: short}})


def test_a_shorter_schedule_speaks_for_itself() -> None:
    """Beside the candidate it tells what one may do without."""
    name = "AdamW, paper"
    found = shortened(results(clear_win()), name)
    assert found.shorter == [name]
    assert sentences(found)[2].startswith(
        "AdamW, paper, trained for 50 steps instead of 100, reached tuned AdamW's best loss in 0.50"
    )
    assert not results(clear_win()).shorter


def test_a_candidate_of_fewer_steps_is_spoken_of_once() -> None:
    name = "Muon, function-preserving"
    said = sentences(shortened(results(clear_win()), name))
    assert said[0].startswith(
        f"{name}, of 2 decorrelated variants the best in tuning, trained for 50 steps instead of 100, "
        "reached tuned AdamW's best loss in 0.30"
    )
    assert sum("tuned AdamW's best loss" in sentence for sentence in said) == 1


def test_seeds_in_which_the_target_diverged_are_counted() -> None:
    runs = clear_win()
    for index in (0, 1):  # the plain ones of the first seed
        runs[index] = measurement(runs[index].variant, 1, 0.001, diverged=True)
    said = " ".join(sentences(results(runs)))
    assert "compared in 2 of 3 seeds" in said
    assert "2 seeds cannot rule out chance" in said


def test_a_rival_that_diverged_in_a_seed_has_still_to_be_beaten() -> None:
    slopes = {"AdamW": 1, "Muon": 5, "AdamW, paper": 2, "Muon, function-preserving": 4}
    runs = [
        measurement(name, seed, slope / 1000, diverged=(name, seed) == ("Muon", 1))
        for seed in (1, 2, 3)
        for name, slope in slopes.items()
    ]
    found = results(runs)
    assert found.rival == "Muon"
    said = " ".join(sentences(found))
    assert "decorrelation does not pay" in said
    assert "Muon in 1 of 3 seeds diverged" in said
    assert "diverged" not in " ".join(sentences(results(clear_win())))


def test_batches_that_are_loaded_in_others_turns_are_told() -> None:
    found = results(clear_win())
    assert "cost no time here" not in " ".join(sentences(found))
    settings = {
        name: params.model_copy(update={"workers": 8}) for name, params in found.settings.items()
    }
    said = " ".join(sentences(found.model_copy(update={"settings": settings})))
    assert "of the 10 batches between two validations, up to 10 are loaded while other" in said


def test_an_optimizer_of_its_own_is_not_taken_for_decorrelation() -> None:
    """AdamW against decorrelated Muon, without plain Muon: which of the two helps is unknown."""
    found = results([run for run in clear_win() if run.variant != "Muon"])
    known = {name: params for name, params in found.settings.items() if name != "Muon"}
    said = " ".join(sentences(found.model_copy(update={"settings": known})))
    assert "Muon, function-preserving is ahead of AdamW in 3 of 3 seeds" in said
    assert "no variant has the optimizer muon without it" in said
    assert "pays" not in said


def test_seeds_that_disagree_leave_it_open() -> None:
    runs = clear_win()
    runs[3] = measurement(runs[3].variant, 1, 0.0001)  # the candidate's first seed
    assert "cannot be told" in " ".join(sentences(results(runs)))


def test_a_baseline_that_learnt_nothing_is_an_empty_target() -> None:
    learnt = results(clear_win())
    assert "Beware" not in " ".join(sentences(learnt))
    idle = learnt.model_copy(update={"constant_loss": 0.9})
    assert "AdamW hardly learnt anything" in " ".join(sentences(idle))


def test_without_decorrelation_there_is_no_verdict() -> None:
    found = results(clear_win())
    plain = {name: found.settings[name] for name in ("AdamW", "Muon")}
    said = " ".join(sentences(found.model_copy(update={"settings": plain})))
    assert "No variant is decorrelated" in said
    assert "decorrelation pays" not in said


def test_a_variant_that_waits_for_its_images_is_named() -> None:
    runs = clear_win()
    hungry = [
        measurement("Muon", run.seed, 2 / 1000, waiting=0.2) if run.variant == "Muon" else run
        for run in runs
    ]
    assert "waited for images" not in " ".join(sentences(results(runs)))
    assert "Beware: Muon waited for images during more than 10%" in " ".join(
        sentences(results(hungry))
    )


def test_what_the_encoders_are_worth_is_said() -> None:
    found = results(clear_win())
    assert "mIoU" not in " ".join(sentences(found))
    shares = {"Muon": [0.5, 0.7], "Muon, function-preserving": [0.4, 0.5]}
    finetuned = [
        Finetuned(variant=name, seed=seed, finetune_seed=0, miou=miou)
        for name, mious in shares.items()
        for seed, miou in enumerate(mious, start=1)
    ]
    said = " ".join(sentences(found.model_copy(update={"finetuned": finetuned})))
    assert (
        "function-preserving have a held-out mIoU of 0.450 (0.400 to 0.500), those of Muon" in said
    )
    assert "those of Muon 0.600 (0.500 to 0.700)." in said


def test_an_encoder_counts_once_however_often_it_is_fine_tuned() -> None:
    found = results(clear_win())
    finetuned = [
        Finetuned(variant=name, seed=seed, finetune_seed=number, miou=miou)
        for name in ("Muon", "Muon, function-preserving")
        for seed, mious in ((1, [0.5, 0.75]), (2, [0.25, None]), (3, [None, None]))
        for number, miou in enumerate(mious)
    ]
    found = found.model_copy(update={"finetuned": finetuned})
    assert found.miou("Muon").values == (0.625, 0.25)
    assert not found.miou("AdamW").values
    one = found.model_copy(update={"finetuned": [run for run in finetuned if run.seed == 1]})
    assert "those of Muon 0.625 (one encoder)" in " ".join(sentences(one))


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ([0], "highest over the seeds of the pre-training."),
        ([0, 1], "pre-training, each with the mean of 2 seeds of the fine-tuning."),
    ],
)
def test_the_page_says_how_often_an_encoder_is_fine_tuned(seeds: list[int], said: str) -> None:
    found = with_finetuning(results(clear_win()), {"AdamW": 0.5})
    planned = found.model_copy(update={"plan": plan(finetune={"seeds": seeds})})
    assert said in page(planned, date(2026, 1, 31))


def test_few_seeds_are_said_to_be_few() -> None:
    assert "1 seed cannot rule out chance" in " ".join(sentences(results(clear_win()[:4])))


@pytest.mark.parametrize(
    "energy",
    [
        EnergySource(measured=["gpu"], watts=None),
        EnergySource(measured=[], watts=40.0),
        EnergySource(measured=[], watts=None),
    ],
)
def test_the_page_says_where_the_energy_comes_from(energy: EnergySource) -> None:
    html = page(results(clear_win(), energy), date(2026, 1, 31))
    assert {"measured": "read from the counters of the GPU", "estimated": "Energy is estimated",
            "not measured": "Energy was not measured"}[energy.kind] in html  # fmt: skip
    assert html.count("<svg") == (3 if energy.kind == "not measured" else 4)


def test_the_page_is_whole_and_offline() -> None:
    found = with_finetuning(results(clear_win()), {"AdamW": 0.712, "Muon": None})
    html = page(found, date(2026, 1, 31))
    for words in (*found.settings, "diverged", "DVC", "0.712", "held-out mIoU"):
        assert words in html, words
    assert not re.search(r"<(script|link|iframe|img)|url\((?!#)|@import", html)
    assert not re.search(r"\b(None|nan|inf)\b", re.sub(r"<svg.*?</svg>", "", html, flags=re.S))


def test_names_are_text_and_nothing_else() -> None:
    found = results(clear_win())
    data = found.data.model_copy(update={"source": "<script>alert(1)</script>"})
    assert "<script>" not in page(found.model_copy(update={"data": data}), date(2026, 1, 31))


def test_the_figures_survive_json() -> None:
    found = results(clear_win())
    assert Results.model_validate_json(found.model_dump_json()) == found
    figures = headline(found)
    assert figures["Muon: time to the best loss of AdamW"] == 0.5
    json.dumps([figures, table(found)], allow_nan=False)


def test_a_page_is_made_where_every_run_diverged() -> None:
    runs = [
        run.model_copy(update={"rows": [], "diverged": True})
        for run in clear_win()
        if run.seed == 1
    ]
    assert "diverged" in page(results(runs), date(2026, 1, 31))
