"""Time to a target, on curves whose answer is known."""

import json
import math

import pytest
from made_results import clear_win, measurement, results

from dbp_mae.comparison.figures import headline, table
from dbp_mae.comparison.findings import sentences
from dbp_mae.comparison.measurement import Measurement
from dbp_mae.comparison.results import Finetuned, Results
from dbp_mae.comparison.spread import Spread, share
from dbp_mae.comparison.tuning import Trial
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


def test_the_candidate_is_the_tuning_s_not_the_luckiest() -> None:
    """A variant that only the measured seeds favour does not speak for decorrelation."""
    slopes = {"AdamW": 1, "Muon": 2, "AdamW, paper": 4, "Muon, function-preserving": 1}
    runs = [measurement(name, 1, slope / 1000) for name, slope in slopes.items()]
    assert results(runs).candidate == "Muon, function-preserving"
    assert "does not pay" in " ".join(sentences(results(runs)))


def test_the_baseline_has_to_be_beaten_at_its_level_rate_too() -> None:
    runs = [*clear_win(), *(measurement("AdamW at 0.002", seed, 0.0015) for seed in (1, 2, 3))]
    found = results(runs)
    twin = found.settings["AdamW"].model_copy(update={"learning_rate": 0.002})
    found = found.model_copy(update={"settings": found.settings | {"AdamW at 0.002": twin}})
    assert found.targets == ["AdamW", "AdamW at 0.002", "Muon"]
    assert "tuned AdamW at 0.002's best loss in 0.40 (" in sentences(found)[1]


def test_a_rate_is_judged_by_its_mean_over_the_tuning_s_seeds() -> None:
    assert Trial(learning_rate=1e-3, losses=[0.25, 0.75]).loss == 0.5
    assert Trial(learning_rate=1e-3, losses=[0.25, None]).loss == math.inf


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


def test_the_figures_survive_json() -> None:
    found = results(clear_win())
    assert Results.model_validate_json(found.model_dump_json()) == found
    figures = headline(found)
    assert figures["Muon: time to the best loss of AdamW"] == 0.5
    json.dumps([figures, table(found)], allow_nan=False)
