"""Batches loaded by processes beside the training."""

import os
import signal

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


@pytest.mark.parametrize(("fatal", "ended"), [(3, True), (None, False)])
def test_a_process_that_was_ended_is_told_from_one_that_failed(
    fatal: int | None, ended: bool
) -> None:
    with pytest.raises((RuntimeError, ConnectionError)) as caught:
        list(load(Numbered(fatal), range(7), workers=1))
    assert loader_was_ended(caught.value) == ended
