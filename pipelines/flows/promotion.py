"""The gate between a new model and the one that is served."""

import shutil
from collections.abc import Callable
from pathlib import Path

from dbp_mae.files import atomic_path, sha256_of

CANDIDATE = Path("models/segmenter.onnx")
PRODUCTION = Path("models/production/segmenter.onnx")


def served_model() -> Path:
    """Return the model that `make serve` serves: the promoted one, else the pipeline's."""
    return PRODUCTION if PRODUCTION.exists() else CANDIDATE


def promote(miou: float, judge: Callable[[Path], float], tolerance: float) -> str:
    """Put the new model in the place of the served one, unless it is worse.

    Args:
        miou: held-out mIoU of the new model.
        judge: measures a model file on the same held-out images.
        tolerance: how much mIoU the new model may lose.

    Returns:
        what was done, in one sentence.
    """
    if not PRODUCTION.exists():
        _replace()
        return f"The first model was promoted, with a held-out mIoU of {miou:.3f}: serve it."
    if sha256_of(CANDIDATE) == sha256_of(PRODUCTION):
        return "The served model is the new one already."
    served = judge(PRODUCTION)
    figures = f"held-out mIoU {miou:.3f} against {served:.3f} of the served model"
    if miou < served - tolerance:
        return f"The served model stays, the new one is worse: {figures}."
    _replace()
    return f"The new model was promoted, {figures}: restart the service to load it."


def _replace() -> None:
    with atomic_path(PRODUCTION) as temporary:
        shutil.copyfile(CANDIDATE, temporary)
