"""Work on images in a process a core."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any, TypeVar

import cv2

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_processes(
    function: Callable[..., Result], items: Sequence[Item], at_once: int, **same: Any
) -> Iterator[Result]:
    """Yield function(item, **same) of each item in their order, from as many processes as there are cores.

    Args:
        function: of a module's top level, for the processes import it.
        at_once: items that a process takes before it reports.
    """
    # A fork of this process would inherit the locks of OpenCV's threads, and might wait for them.
    context = get_context("forkserver")
    context.set_forkserver_preload([function.__module__])
    processes = min(os.cpu_count() or 1, math.ceil(len(items) / at_once))
    with ProcessPoolExecutor(processes, context, cv2.setNumThreads, (1,)) as pool:
        yield from pool.map(partial(function, **same), items, chunksize=at_once)
