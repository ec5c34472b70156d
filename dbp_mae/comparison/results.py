"""What a comparison measured, and the ratios that follow from it."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Literal

from dbp_mae.comparison.measurement import Measurement, Row
from dbp_mae.comparison.plan import Plan, is_plain
from dbp_mae.comparison.spread import Spread
from dbp_mae.comparison.tuning import Tuning
from dbp_mae.params import Block, FinetuneParams, PretrainParams

Quantity = Literal["step", "seconds", "joules"]
QUANTITIES: tuple[Quantity, ...] = ("step", "seconds", "joules")


class Finetuned(Block):
    """The held-out mIoU of a measured encoder."""

    variant: str
    seed: int
    finetune_seed: int
    miou: float | None
    """None where no class is labelled."""


class EnergySource(Block):
    """Where the joules come from."""

    measured: list[str]
    """The parts whose counters were read; without any, watts tell."""
    watts: float | None
    """codecarbon's estimate of the machine's mean power; None where nothing is known."""

    @property
    def kind(self) -> Literal["measured", "estimated", "not measured"]:
        """How far the joules can be believed."""
        if self.measured:
            return "measured"
        return "not measured" if self.watts is None else "estimated"


class Data(Block):
    """What the variants saw."""

    source: str
    sha256: str
    """Of the manifest, in which every file's own stands."""
    training_images: int
    validation_images: int


class Results(Block):
    """All of a comparison."""

    plan: Plan
    settings: dict[str, PretrainParams]
    """What was measured: each variant at its best learning rate, the plain ones at a level one too.

    Each measurement has its seed.
    """
    recipe: FinetuneParams | None
    environment: dict[str, Any]
    data: Data
    energy: EnergySource
    constant_loss: float
    """The validation loss of predicting each patch's mean."""
    tuning: dict[str, Tuning]
    measurements: list[Measurement]
    """Of the seeds that all variants have finished."""
    finetuned: list[Finetuned]

    @property
    def seeds(self) -> list[int]:
        """The seeds that all variants have finished."""
        return list(dict.fromkeys(run.seed for run in self.measurements))

    @property
    def plain(self) -> list[str]:
        """The variants without decorrelation, the baseline first."""
        names = [name for name, params in self.settings.items() if is_plain(params)]
        return sorted(names, key=lambda name: name != self.plan.baseline)

    @property
    def decorrelated(self) -> list[str]:
        """The variants with decorrelation."""
        return [name for name, params in self.settings.items() if not is_plain(params)]

    @property
    def shorter(self) -> list[str]:
        """The variants that are trained for fewer steps than the baseline."""
        steps = self.settings[self.plan.baseline].steps
        return [name for name, params in self.settings.items() if params.steps < steps]

    def runs(self, variant: str) -> list[Measurement]:
        """Return the measurements of a variant, one a seed."""
        return [run for run in self.measurements if run.variant == variant]

    def best_loss(self, variant: str) -> Spread:
        """Return the least validation loss; inf where the run diverged."""
        return _spread(run.best_loss for run in self.runs(variant))

    def to_target(self, variant: str, target: str, quantity: Quantity) -> Spread:
        """Return what `variant` took to the best loss that `target` reached with the same seed."""
        return _spread(
            _value(run.first_at(goal.best_loss), quantity)
            for run, goal in self._pairs(variant, target)
        )

    def ratio(self, variant: str, target: str, quantity: Quantity) -> Spread:
        """Return what `to_target` does, seed by seed, as a share of what `target` took itself."""
        return _spread(
            _value(run.first_at(goal.best_loss), quantity) / _value(goal.best, quantity)
            for run, goal in self._pairs(variant, target)
        )

    def steadied_ratio(self, variant: str, target: str) -> Spread:
        """Return the `ratio` of time as a steady machine would have it: that of steps, times their cost."""
        return _spread(
            _value(run.first_at(goal.best_loss), "step")
            / _value(goal.best, "step")
            * _paired_cost(run, goal)
            for run, goal in self._pairs(variant, target)
        )

    def step_cost(self, variant: str, target: str) -> Spread:
        """Return the seconds of a step as a ratio to the target's, seed by seed."""
        pairs = self._pairs(variant, target)
        return _spread(_paired_cost(run, goal) for run, goal in pairs if run.rows)

    @property
    def drift(self) -> float:
        """How much the machine's speed changed within a seed: the largest `drift` of the baseline's runs."""
        return max((run.drift for run in self.runs(self.plan.baseline)), default=1.0)

    def waiting(self, variant: str) -> Spread:
        """Return the share of its time that each run waited for its batches."""
        ends = (run.rows[-1] for run in self.runs(variant) if run.rows)
        return _spread(end.waited / end.seconds for end in ends)

    def miou(self, variant: str) -> Spread:
        """Return the held-out mIoU by encoder: the mean over its fine-tunings that could be judged."""
        by_seed: dict[int, list[float]] = defaultdict(list)
        for item in self.finetuned:
            if item.variant == variant and item.miou is not None:
                by_seed[item.seed].append(item.miou)
        return _spread(map(statistics.fmean, by_seed.values()))

    @property
    def candidate(self) -> str | None:
        """The decorrelated variant with the least loss in the tuning; None without any.

        Chosen before the measured seeds are looked at: the best of several would flatter itself.
        """
        return min(self.decorrelated, key=lambda name: self.tuning[name].least_loss, default=None)

    @property
    def rival(self) -> str:
        """The variant without decorrelation that reached the least loss: what has to be beaten.

        Of a seed in which it diverged nothing counts, or a strong rival would be out with it.
        """
        return min(self.plain, key=self._mean_loss)

    @property
    def targets(self) -> list[str]:
        """The plain variants to beat: the baseline, at its level rate too, and its best rival."""
        own = self.settings[self.plan.baseline]
        level = [
            name
            for name, params in self.settings.items()
            if params == own.model_copy(update={"learning_rate": params.learning_rate})
        ]
        return list(dict.fromkeys((self.plan.baseline, *level, self.rival)))

    def diverged(self, variant: str) -> int:
        """Return in how many seeds a variant diverged."""
        return sum(run.diverged for run in self.runs(variant))

    def _mean_loss(self, variant: str) -> float:
        reached = [loss for loss in self.best_loss(variant).values if math.isfinite(loss)]
        return statistics.fmean(reached) if reached else math.inf

    def _pairs(self, variant: str, target: str) -> list[tuple[Measurement, Measurement]]:
        """Pair each run of a variant with the target's at the same seed, where that did not diverge."""
        goals = {run.seed: run for run in self.runs(target) if not run.diverged}
        return [(run, goals[run.seed]) for run in self.runs(variant) if run.seed in goals]


def _paired_cost(run: Measurement, other: Measurement) -> float:
    """Return what a step costs as a ratio to another run's; inf where it never came to a validation.

    The median over the slices, by their number: those of one round, so that the machine's drift cancels.
    """
    slices = zip(run.pace, other.pace, strict=False)
    return statistics.median([own / its for own, its in slices] or [math.inf])


def _spread(values: Iterable[float]) -> Spread:
    return Spread(tuple(values))


def _value(row: Row | None, quantity: Quantity) -> float:
    """Return a row's quantity; inf without a row, nan where it is unknown or below a counter's grain."""
    return math.inf if row is None else getattr(row, quantity) or math.nan
