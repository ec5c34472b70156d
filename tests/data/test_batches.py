"""Batches loaded by processes beside the training."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dbp_mae.data.batches import Batches, Pair, load, loader_was_ended


class Numbered(Batches):
    """Batches that hold their number; to load number `fatal` ends the process."""

    def __init__(self, fatal: int | None = None) -> None:
        self.fatal = fatal

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Pair:
        if index == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        if index == len(self):
            raise RuntimeError("a mistake of ours")
        return torch.tensor(index), torch.tensor(-index)

    def fill(self, threads: int) -> None:
        """Nothing has to be decoded."""


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_their_order(workers: int) -> None:
    assert [int(first) for first, _ in load(Numbered(), range(2, 6), workers)] == [2, 3, 4, 5]


def test_a_process_that_failed_was_not_ended() -> None:
    with pytest.raises(RuntimeError, match="a mistake of ours") as caught:
        list(load(Numbered(), range(7), workers=1))
    assert not loader_was_ended(caught.value)


ENDED = """
from test_batches import Numbered, load, loader_was_ended
try:
    list(load(Numbered(fatal=3), range(6), workers=1))
except (RuntimeError, ConnectionError) as error:
    print(loader_was_ended(error))
"""


def test_a_process_that_was_ended_is_known() -> None:
    """In a process of its own, for PyTorch may raise its error at any later time too."""
    done = subprocess.run(
        [sys.executable, "-c", ENDED],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "True\n", done.stderr
