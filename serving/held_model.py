"""The served model, held in memory while the service runs, whatever becomes of its file."""

import os
import shutil
from pathlib import Path

VARIABLE = "DBP_MAE_HELD_MODEL"
"""How the service tells its workers where it holds the model."""


def hold(model: Path) -> None:
    """Hold a copy of a model file until this process ends.

    A worker that was killed is replaced, perhaps after a training has replaced the file, or while one
    has removed it: the new worker serves what the old one did.
    """
    descriptor = os.memfd_create(model.name)
    with model.open("rb") as source, os.fdopen(descriptor, "wb", closefd=False) as held:
        shutil.copyfileobj(source, held)
    os.environ[VARIABLE] = f"/proc/{os.getpid()}/fd/{descriptor}"


def held_model(model: Path) -> Path:
    """Return where the copy of a model file is, or the file itself where none is held."""
    return Path(os.environ.get(VARIABLE) or model)
