"""Where a training that was killed goes on: everything a bit-identical resume needs, in one file."""

import hashlib
import pickle
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from filelock import FileLock, Timeout
from pydantic import BaseModel

from dbp_mae.encoder import EncoderSpec
from dbp_mae.environment import code_sha256
from dbp_mae.errors import UserError
from dbp_mae.files import atomic_path

ROOT = Path(".checkpoints")
"""Outside the outputs of any stage, for DVC deletes those before the stage runs."""


IDENTITY = ["path", "sha256", "split", "label_state", "group", "mask_sha256"]
"""The manifest's columns that a training depends on, row by row in their order."""


def run_folder(name: str, frame: pd.DataFrame, *settings: BaseModel | EncoderSpec) -> Path:
    """Return the folder of one training: its name, with a hash of its data, its settings and the code.

    Code that has changed begins anew, or what comes of it could not be had again.
    """
    digest = hashlib.sha256(frame[IDENTITY].to_csv(index=False).encode())
    digest.update(code_sha256().encode())
    for block in settings:
        text = block.model_dump_json() if isinstance(block, BaseModel) else repr(block)
        digest.update(text.encode())
    return ROOT / f"{name}-{digest.hexdigest()[:12]}"


def not_finite(state: Any, name: str = "") -> Iterator[str]:
    """Yield the names of the tensors in a state, nested as it may be, that are not finite (syncs)."""
    if isinstance(state, torch.Tensor):
        if not state.isfinite().all():
            yield name
    elif isinstance(state, dict | list):
        items = state.items() if isinstance(state, dict) else enumerate(state)
        for key, value in items:
            yield from not_finite(value, f"{name}.{key}".lstrip("."))


class Checkpoint:
    """The last state of a training in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "last.pt"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder in this block; wait, with a line, for a process that holds it.

        One may: what is stopped takes its time, and ending `make` or `dvc` alone leaves their child.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder.with_name(f"{self.folder.name}.lock"))
        try:
            lock.acquire(blocking=False)
        except Timeout:
            print(
                f"Another process is still at {self.folder.name}: waiting until it has ended.",
                flush=True,
            )
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def save(self, state: dict[str, Any]) -> None:
        """Write `state`, tensors and plain values, in place of the last one."""
        with self.saving(state):
            pass

    @contextmanager
    def saving(self, state: dict[str, Any]) -> Iterator[None]:
        """Write `state`; it takes the place of the last one when the block succeeds."""
        with atomic_path(self.path) as temporary:
            with temporary.open("wb") as file:
                try:
                    torch.save(state, file)
                except (
                    RuntimeError
                ) as error:  # torch's own end of the file hides what the disk said
                    raise (
                        error.__context__ if isinstance(error.__context__, OSError) else error
                    ) from None
            yield

    def load(self) -> dict[str, Any] | None:
        """Return the last state, on the CPU, or None where there is none.

        Raises:
            UserError: the file is damaged.
        """
        if not self.path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        except (EOFError, RuntimeError, pickle.UnpicklingError):
            raise UserError(
                f"{self.path}, from which the training would go on, is damaged: remove {self.folder}, "
                "and it starts from its beginning."
            ) from None
        return state

    def discard(self) -> None:
        """Remove the folder: the training is finished."""
        shutil.rmtree(self.folder, ignore_errors=True)
