"""Work on images in a process a core."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from typing import Any, TypeVar

import cv2

from dbp_mae.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_processes(
    function: Callable[..., Result], items: Sequence[Item], at_once: int, **same: Any
) -> Iterator[Result]:
    """Yield function(item, **same) of each item in their order, from as many processes as there are cores.

    Args:
        function: of a module's top level, for the processes import it.
        at_once: items that a process takes before it reports.

    Raises:
        UserError: the machine's memory is too small.
    """
    # A fork of this process would inherit the locks of OpenCV's threads, and might wait for them.
    context = get_context("forkserver")
    context.set_forkserver_preload([function.__module__])
    processes = min(len(os.sched_getaffinity(0)), math.ceil(len(items) / at_once))
    try:
        with ProcessPoolExecutor(processes, context, cv2.setNumThreads, (1,)) as pool:
            yield from pool.map(partial(function, **same), items, chunksize=at_once)
    except (BrokenProcessPool, MemoryError):
        raise UserError(
            f"One of {processes} processes that work on images was ended, most likely for want of "
            "memory: free some, or run on fewer cores (taskset -c 0 before the command)."
        ) from None
