"""One flow at a time in a workspace."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec

from filelock import FileLock, Timeout
from prefect.states import Completed, State

LOCK = Path(".dvc/tmp/flow.lock")

P = ParamSpec("P")


def exclusive(body: Callable[P, State]) -> Callable[P, State]:
    """Run a flow's body under the workspace's lock, which the system frees even after a kill.

    Where another run holds the lock, the flow ends at once, under the name Skipped.
    """

    @functools.wraps(body)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> State:
        LOCK.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(LOCK, blocking=False):
                return body(*args, **kwargs)
        except Timeout:
            return Completed(
                name="Skipped", message="Another run is at work in this folder: nothing was done."
            )

    return guarded
