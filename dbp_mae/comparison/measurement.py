"""One pre-training of a comparison, measured."""

import math
import statistics
from itertools import pairwise

from dbp_mae.params import Block


class Row(Block):
    """A validation, with what the training had taken until then."""

    step: int
    seconds: float
    joules: float | None
    """None where it is not known."""
    waited: float
    """Of the seconds, those without a batch to train on."""
    train_loss: float
    val_loss: float


class Measurement(Block):
    """One pre-training of one variant."""

    variant: str
    seed: int
    learning_rate: float
    rows: list[Row]
    """Up to the step at which it diverged, if it did."""
    diverged: bool

    @property
    def best(self) -> Row | None:
        """The validation of the least loss, or None where it diverged before the first one."""
        return min(self.rows, key=lambda row: row.val_loss, default=None)

    @property
    def best_loss(self) -> float:
        """The least validation loss; inf where the run diverged, however low it had been."""
        return math.inf if self.diverged or self.best is None else self.best.val_loss

    @property
    def pace(self) -> list[float]:
        """Seconds a step in each slice, from one validation to the next."""
        ends = [(0, 0.0), *((row.step, row.seconds) for row in self.rows)]
        return [
            (seconds - before) / (step - first)
            for (first, before), (step, seconds) in pairwise(ends)
        ]

    @property
    def drift(self) -> float:
        """How much the machine's speed changed: a step of the slowest third of the run by the fastest's."""
        cuts = [len(self.pace) * part // 3 for part in range(4)]
        thirds = [self.pace[start:stop] for start, stop in pairwise(cuts)]
        typical = [statistics.median(third) for third in thirds if third]
        return max(typical) / min(typical) if typical else 1.0

    def first_at(self, loss: float) -> Row | None:
        """Return the first validation at or below a loss; nothing is interpolated.

        None where there is none, or where the run diverged, whatever it had reached before.
        """
        if self.diverged:
            return None
        return next((row for row in self.rows if row.val_loss <= loss), None)
