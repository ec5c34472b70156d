"""A figure over the seeds, and how it is written."""

import math
from dataclasses import dataclass

from dbp_mae.pages.formatting import UNKNOWN, decimal


@dataclass(frozen=True)
class Spread:
    """A figure over the seeds, one value a seed; inf for never."""

    values: tuple[float, ...]

    @property
    def reached(self) -> int:
        """In how many seeds it is finite."""
        return sum(map(math.isfinite, self.values))

    @property
    def always(self) -> bool:
        """Whether it is finite in every seed, of which there is one at least."""
        return bool(self.values) and self.reached == len(self.values)

    @property
    def mean(self) -> float | None:
        """The arithmetic mean; None unless every seed has a figure."""
        return sum(self.values) / len(self.values) if self.always else None

    @property
    def geometric_mean(self) -> float | None:
        """The mean of ratios: that of their inverses is its inverse. None as for `mean`."""
        return math.exp(sum(map(math.log, self.values)) / len(self.values)) if self.always else None

    @property
    def low(self) -> float | None:
        """The least value; None without any, inf where all are."""
        return min(self.values, default=None)

    @property
    def high(self) -> float | None:
        """The largest value; None without any."""
        return max(self.values, default=None)


def share(spread: Spread) -> str:
    """Write ratios by seed: their geometric mean, lowest and highest."""
    mean, low, high = spread.geometric_mean, spread.low, spread.high
    if low is None or any(map(math.isnan, spread.values)):
        return UNKNOWN
    if mean is not None:
        bounds = f" ({low:.2f} to {high:.2f})" if len(spread.values) > 1 else " (one seed)"
        return decimal(mean) + bounds
    if not spread.reached:
        return "never"
    return f"{low:.2f} to never ({spread.reached} of {len(spread.values)} seeds)"


def average(spread: Spread, digits: int, never: str) -> str:
    """Write figures by seed: their mean, lowest and highest."""
    if not spread.values:
        return UNKNOWN
    if spread.mean is None:
        return f"{never} in {len(spread.values) - spread.reached} of {len(spread.values)} seeds"
    text = f"{spread.mean:.{digits}f}"
    if len(spread.values) > 1:
        text += f" ({spread.low:.{digits}f} to {spread.high:.{digits}f})"
    return text
