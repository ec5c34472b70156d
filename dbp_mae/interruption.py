"""Ctrl-C and a termination that let the work at hand come to a good end first."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from dbp_mae.errors import UserError


class Interrupted(UserError):
    """A training that was asked to stop; the message says where it goes on."""


@contextmanager
def held_back(*signals: signal.Signals) -> Iterator[Callable[[], bool]]:
    """Hold the first of `signals` back in this block; what is yielded tells whether it has come.

    The second one acts as it did before the block, and so does the first in another thread than the main
    one, where Python handles no signal. One that the process ignores stays ignored.
    """
    came: list[int] = []
    before: dict[signal.Signals, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        restore()

    def restore() -> None:
        for each, handler in before.items():
            signal.signal(each, handler)

    if threading.current_thread() is threading.main_thread():
        before = {each: signal.getsignal(each) for each in signals}
        before = {each: old for each, old in before.items() if old is not signal.SIG_IGN}
        for each in before:
            signal.signal(each, note)
    try:
        yield lambda: bool(came)
    finally:
        restore()
