"""The page on a comparison: one HTML file that opens without a network."""

from datetime import date
from itertools import cycle
from typing import Any

import pandas as pd

from dbp_mae.comparison.findings import FEW_SEEDS, sentences
from dbp_mae.comparison.measurement import Row
from dbp_mae.comparison.plan import is_plain
from dbp_mae.comparison.results import Quantity, Results
from dbp_mae.comparison.spread import Spread, average, share
from dbp_mae.emissions import JOULES_PER_KWH
from dbp_mae.pages import charts
from dbp_mae.pages.formatting import UNKNOWN, duration, energy
from dbp_mae.pages.templates import render
from dbp_mae.pretraining.decorrelator import step_length

LEAST_KWH = 0.05
"""Below this the chart's axis is in Wh."""
OWN = "1"
"""A variant's ratio to itself."""
COLORS = ("#33424f", charts.BLUE, charts.ORANGE, charts.GREEN, "#cc79a7", "#e69f00", "#56b4e9")
"""The baseline's, and the others' in their order; told apart by the colour-blind too."""


def page(results: Results, made: date) -> str:
    """Return the comparison as one self-contained HTML page."""
    colors = _colors(results)
    return render(
        "comparison/page.html.j2",
        results=results,
        sentences=sentences(results),
        variants=[_variant(results, name) for name in results.settings],
        rivals=[name for name in results.plain if name != results.plan.baseline],
        ratios={
            (variant, target): _ratio(results, variant, target, "seconds")
            for variant in results.settings
            for target in results.plain
        },
        baseline=results.settings[results.plan.baseline],
        colors=colors,
        charts=_charts(results, colors),
        few_seeds=FEW_SEEDS,
        is_plain=is_plain,
        step_length=step_length,
        made=made,
    )


def _colors(results: Results) -> dict[str, str]:
    first = results.plan.baseline
    others = [name for name in results.settings if name != first]
    return {first: COLORS[0], **dict(zip(others, cycle(COLORS[1:]), strict=False))}


def _variant(results: Results, name: str) -> dict[str, str]:
    """Return the cells of a variant's row in the main table."""
    baseline = results.plan.baseline
    cells = {
        "loss": average(results.best_loss(name), 4, never="diverged"),
        "step_cost": OWN if name == baseline else share(results.step_cost(name, baseline)),
        "seconds": _absolute(results.to_target(name, baseline, "seconds"), duration),
        "energy": _absolute(results.to_target(name, baseline, "joules"), _energy),
        "steps_ratio": _ratio(results, name, baseline, "step"),
        "seconds_ratio": _ratio(results, name, baseline, "seconds"),
        "energy_ratio": _ratio(results, name, baseline, "joules"),
        "miou": average(results.miou(name), 3, never=UNKNOWN),
    }
    return {"name": name, **{key: _kept_together(text) for key, text in cells.items()}}


def _ratio(results: Results, variant: str, target: str, quantity: Quantity) -> str:
    if variant == target:
        return OWN
    return _kept_together(share(results.ratio(variant, target, quantity)))


def _kept_together(text: str) -> str:
    """Let a figure break before its brackets alone."""
    figure, bracket, spread = text.partition(" (")
    return figure + bracket + spread.replace(" ", "\u00a0")


def _charts(results: Results, colors: dict[str, str]) -> dict[str, str]:
    curves = pd.DataFrame(
        [
            {"variant": run.variant, "seed": run.seed, **row.model_dump()}
            for run in results.measurements
            for row in run.rows
        ],
        columns=["variant", "seed", *Row.model_fields],  # known even if every run diverged
    )
    curves["energy"] = curves["joules"].astype(float) / JOULES_PER_KWH
    labels = {"step": "step", "seconds": "seconds of training"}
    if results.energy.kind != "not measured":
        unit = "kWh" if curves["energy"].max() >= LEAST_KWH else "Wh"
        curves["energy"] *= 1 if unit == "kWh" else 1000
        labels["energy"] = f"{unit} of electricity, {results.energy.kind}"
    target = results.best_loss(results.plan.baseline).mean or results.constant_loss
    drawn = {
        quantity: charts.comparison_chart(
            curves, quantity, label, colors, target, results.constant_loss
        )
        for quantity, label in labels.items()
    }
    return drawn | {"tuning": charts.tuning_chart(_trials(results), colors)}


def _trials(results: Results) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"variant": name, "learning_rate": trial.learning_rate, "loss": trial.loss}
            for name, tuning in results.tuning.items()
            for trial in tuning.trials
        ]
    )


def _absolute(spread: Spread, written: Any) -> str:
    """Write a mean over the seeds in its unit."""
    return UNKNOWN if spread.mean is None else written(spread.mean)


def _energy(joules: float) -> str:
    return energy(joules / JOULES_PER_KWH)
