"""One line a finished piece of work: what was done, how much of all is done, and how long the rest takes."""

import time
from collections.abc import Callable

from dbp_mae.pages.formatting import duration, percent


class Progress:
    """Counts work in units of one kind, such as steps; the time left goes by this session's pace."""

    def __init__(self, announce: Callable[[str], None]) -> None:
        self.announce = announce
        self.planned = self.done = self.worked = 0
        self.started = time.perf_counter()

    def plan(self, units: int) -> None:
        """Add work that has to be done."""
        self.planned += units

    def skip(self, units: int) -> None:
        """Count planned work as done that takes no time: it was done before, or need not be."""
        self.done += units

    def report(self, text: str, units: int) -> None:
        """Announce that planned work is done."""
        self.done += units
        self.worked += units
        elapsed = time.perf_counter() - self.started
        left = elapsed / self.worked * (self.planned - self.done) if self.worked else 0.0
        rest = f"about {duration(left)} left" if left else "nothing left"
        self.announce(f"{text} ({percent(self.done / self.planned)} done, {rest})")
