"""Batches loaded by processes beside the training."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dbp_mae.data.batches import Batches, Pair


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


def printed(code: str) -> str:
    """Return what a loading process of its own prints: PyTorch may raise its error at any later time too."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout, done.stderr
    return done.stdout


ORDER = """
from test_batches import Numbered

from dbp_mae.data.batches import load

print([int(first) for first, _ in load(Numbered(), range(2, 6), {workers})])
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_their_order(workers: int) -> None:
    assert printed(ORDER.format(workers=workers)) == "[2, 3, 4, 5]\n"


ENDED = """
from test_batches import Numbered

from dbp_mae.data.batches import load, loader_was_ended

try:
    list(load(Numbered({fatal}), range(7), workers=1))
except (RuntimeError, ConnectionError, EOFError) as error:
    print(loader_was_ended(error))
"""


@pytest.mark.parametrize(("fatal", "ended"), [(3, True), (None, False)])
def test_a_process_that_was_ended_is_told_from_one_that_failed(
    fatal: int | None, ended: bool
) -> None:
    assert printed(ENDED.format(fatal=fatal)) == f"{ended}\n"
