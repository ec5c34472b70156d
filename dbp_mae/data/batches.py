"""What a training takes: batches by their number, whose images may be decoded beforehand."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dbp_mae.training.interruption import leave_group

Pair = tuple[Tensor, Tensor]


class Batches(Dataset[Pair], ABC):
    """Item `index` is a batch, always the same one."""

    @abstractmethod
    def __len__(self) -> int:
        """Return how many there are."""

    @abstractmethod
    def fill(self, threads: int) -> None:
        """Decode now the images that memory has room for; processes forked later share them."""


def load(batches: Batches, numbers: range, workers: int) -> Iterator[Pair]:
    """Return the batches of these numbers, loaded by so many processes, or in this one without any."""
    if workers and numbers:
        batches.fill(workers)
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=leave_group,
    )
    return iter(loader)  # the processes start here


def loader_was_ended(error: Exception) -> bool:
    """Tell whether an error says that a process of `load` was ended from outside."""
    lost = isinstance(error, ConnectionError | EOFError)
    return lost or str(error).startswith("DataLoader worker (pid")


def channels_first(images: Sequence[np.ndarray] | np.ndarray) -> Tensor:
    """Return images of one size, H W C, as one tensor, B C H W, with a single copy."""
    height, width, channels = images[0].shape
    stacked = np.empty((len(images), channels, height, width), images[0].dtype)
    np.stack([image.transpose(2, 0, 1) for image in images], out=stacked)
    return torch.from_numpy(stacked)
