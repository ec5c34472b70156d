"""Work on images in several processes."""

import os
import signal
from collections.abc import Callable

import pytest

from dbp_mae.data.processes import map_in_processes
from dbp_mae.errors import UserError


def squared(item: int, offset: int) -> int:
    return item**2 + offset


def killed(item: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return item


def too_large(item: int) -> int:
    raise MemoryError


def test_results_keep_their_order() -> None:
    assert list(map_in_processes(squared, range(9), 2, offset=1)) == [i**2 + 1 for i in range(9)]


@pytest.mark.parametrize("ended", [killed, too_large])
def test_a_process_without_memory_is_one_sentence(ended: Callable[[int], int]) -> None:
    with pytest.raises(UserError, match="for want of memory"):
        list(map_in_processes(ended, range(4), 2))
