"""The served model, held in memory while the service runs, whatever becomes of its file."""

import os
from pathlib import Path

VARIABLE = "DBP_MAE_HELD_MODEL"
"""How the service tells its workers where it holds the model."""


def hold(model: bytes) -> None:
    """Hold the contents of a model file until this process ends.

    Where BentoML replaces a worker that was killed (outside its containers), a training may have replaced
    or removed the file by then: the new worker serves what the old one did.
    """
    descriptor = os.memfd_create("segmenter.onnx")
    with os.fdopen(descriptor, "wb", closefd=False) as held:
        held.write(model)
    os.environ[VARIABLE] = f"/proc/{os.getpid()}/fd/{descriptor}"


def held_path(model: Path) -> Path:
    """Return where a model file's contents are held, or the file itself where they are not."""
    return Path(os.environ.get(VARIABLE) or model)
