"""Figures as a reader likes them: short, with a unit that fits, and a dash where unknown."""

from collections.abc import Callable
from typing import Any

UNKNOWN = "–"
LEAST_SHARE = 0.0005
"""What one decimal of a percentage would write as 0."""


def percent(share: float | None) -> str:
    """Write a share as a percentage; a decimal near 0 and 100 %, which only 0 and 1 reach."""
    if share is None or share != share:
        return UNKNOWN
    if 0 < share < LEAST_SHARE:
        return "<\u00a00.1\u00a0%"
    if 1 - LEAST_SHARE <= share < 1:
        return ">\u00a099.9\u00a0%"
    digits = 0 if share in (0, 1) or 0.1 <= share <= 0.9 else 1
    return f"{100 * share:.{digits}f}\u00a0%"


def decimal(value: float | None, digits: int = 2) -> str:
    """Write a number with a fixed count of digits after the point."""
    return UNKNOWN if value is None or value != value else f"{value:.{digits}f}"


def signed(value: float | None) -> str:
    """Write a difference of shares with its sign, to the thousandth."""
    return UNKNOWN if value is None or value != value else f"{value:+.3f}".replace("-", "−")


def count(value: int) -> str:
    """Write a whole number with thin spaces between the thousands."""
    return f"{value:,}".replace(",", "\u202f")


def energy(kwh: float) -> str:
    """Write an energy in kWh, or Wh when small."""
    return _scaled(kwh, (("kWh", 1), ("Wh", 1e-3), ("mWh", 1e-6)))


def mass(kg: float) -> str:
    """Write a mass in kg, or g when small."""
    return _scaled(kg, (("kg", 1), ("g", 1e-3), ("mg", 1e-6)))


def duration(seconds: float) -> str:
    """Write a time in h, min, s or ms."""
    return _scaled(seconds, (("h", 3600), ("min", 60), ("s", 1), ("ms", 1e-3)))


def size(count: int) -> str:
    """Write a count of bytes in MB or kB."""
    return _scaled(count, (("MB", 1e6), ("kB", 1e3)))


def _scaled(value: float, units: tuple[tuple[str, float], ...]) -> str:
    """Write three significant digits in the largest unit that leaves at least 1."""
    unit, scale = next((pair for pair in units if value >= pair[1]), units[-1])
    scaled = value / scale
    digits = 2 if scaled < 10 else 1 if scaled < 100 else 0
    return f"{scaled:.{digits}f}\u00a0{unit}"


FILTERS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (percent, decimal, signed, count, energy, mass, duration, size)
}
