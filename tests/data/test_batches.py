"""Batches loaded by processes beside the training."""

import os
import signal

import pytest
import torch

from dbp_mae.data.batches import Batches, Pair, load
from dbp_mae.errors import UserError


class Numbered(Batches):
    """Batches that hold their number; to load number `fatal` ends the process."""

    def __init__(self, fatal: int | None = None) -> None:
        self.fatal = fatal

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Pair:
        if index == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.tensor(index), torch.tensor(-index)

    def fill(self, threads: int) -> None:
        """Nothing has to be decoded."""


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_their_order(workers: int) -> None:
    assert [int(first) for first, _ in load(Numbered(), range(2, 6), workers)] == [2, 3, 4, 5]


def test_a_process_that_was_ended_is_one_sentence() -> None:
    with pytest.raises(UserError, match="One of 1 processes that load images was ended"):
        list(load(Numbered(fatal=3), range(6), workers=1))
