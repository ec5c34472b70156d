"""The search for a variant's learning rate: by factors of two, until the best stands between worse ones."""

import math
import operator
import statistics
from collections.abc import Mapping

from dbp_mae.params import Block

FACTOR = 2.0


class Trial(Block):
    """A learning rate that was tried."""

    learning_rate: float
    losses: list[float | None]
    """Of the tuning's seeds, up to the first that diverged, whose loss is None."""

    @property
    def by_seed(self) -> list[float]:
        """The losses, inf for the one that diverged."""
        return [math.inf if loss is None else loss for loss in self.losses]

    @property
    def loss(self) -> float:
        """The mean over the seeds; inf where one diverged."""
        return statistics.fmean(self.by_seed)


class Tuning(Block):
    """How a variant came to its learning rate."""

    trials: list[Trial]
    best: float
    """The learning rate."""
    bracketed: bool
    """Whether a smaller and a larger rate were worse; if not, the tuning hit its bound."""

    @property
    def least_loss(self) -> float:
        """The loss at the best rate; inf where every trial diverged."""
        return min(trial.loss for trial in self.trials)

    @property
    def level(self) -> float | None:
        """The second best rate, where a seed has it ahead of the best: then chance chose between them.

        None where all seeds agree, or where there is but one, which cannot tell.
        """
        if len(self.trials) < 2:
            return None
        best, second, *_ = sorted(self.trials, key=lambda trial: (trial.loss, trial.learning_rate))
        ahead = any(map(operator.lt, second.by_seed, best.by_seed))
        return second.learning_rate if ahead and math.isfinite(second.loss) else None

    def measured(self, plain: bool) -> list[float]:
        """Return the rates to measure: the best, and of a plain variant the level one too.

        That is what decorrelation has to beat, which a draw must not weaken.
        """
        return [self.best, self.level] if plain and self.level else [self.best]


def next_rate(losses: Mapping[float, float]) -> float | None:
    """Return the learning rate to try next, or None where the best one is bracketed.

    Bracketed means that a smaller and a larger rate both end worse than the best.

    Args:
        losses: by the learning rates tried, of which there is one at least; inf where it diverged.
    """
    best = best_rate(losses)
    if not any(rate < best and _worse(losses, rate, best) for rate in losses):
        return min(losses) / FACTOR
    if not any(rate > best and _worse(losses, rate, best) for rate in losses):
        return max(losses) * FACTOR
    return None


def best_rate(losses: Mapping[float, float]) -> float:
    """Return the learning rate of the least loss; of equals, the smallest."""
    return min(losses, key=lambda rate: (losses[rate], rate))


def _worse(losses: Mapping[float, float], rate: float, best: float) -> bool:
    """Tell whether a rate ends worse than the best one."""
    return losses[rate] > losses[best] or math.isinf(losses[rate])
