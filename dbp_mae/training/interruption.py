"""Ctrl-C and a termination that let the work at hand come to a good end first."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from dbp_mae.errors import UserError

STDERR = 2
TOLD = signal.SIGUSR1
"""By which a process tells those that train beside it: it ends without a trace one that holds nothing back
yet, and is no second signal to one that got the first itself, with the whole group."""


class Interrupted(UserError):
    """A training that was asked to stop; the message says where it goes on."""


@contextmanager
def held_back(*signals: signal.Signals) -> Iterator[Callable[[], bool]]:
    """Hold the first of each of `signals` back in this block; what is yielded tells whether one came.

    A second one acts as it did before the block. So does the first in another thread than the main one,
    where Python handles no signal. One that the process ignores stays ignored.

    Processes that train beside this one are told too, once, by TOLD; it is held back like `signals`.
    """
    came: list[int] = []
    before: dict[int, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        signal.signal(number, before[number])
        if len(came) == 1:
            _tell_others()
        if multiprocessing.parent_process() is None:
            with suppress(OSError):  # what reads our messages may have ended by the same signal
                os.write(STDERR, b"\nStopping when the state is kept; once more stops at once.\n")

    if threading.current_thread() is threading.main_thread():
        handlers = {each: signal.getsignal(each) for each in (*signals, TOLD)}
        before = {each: old for each, old in handlers.items() if old is not signal.SIG_IGN}
    try:
        for each in before:
            signal.signal(each, note)
        yield lambda: bool(came)
    finally:
        for each, old in before.items():
            signal.signal(each, old)


def _tell_others() -> None:
    for process in multiprocessing.active_children():
        if process.pid and not process.daemon:
            os.kill(process.pid, TOLD)


def leave_group(worker: int) -> None:
    """Let a process that loads data miss what a terminal sends to the group: its parent ends it."""
    os.setpgrp()
