"""The gate between a new model and the one that is served."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from dbp_mae.data.manifest import labelled_in
from dbp_mae.data.seen import is_seen, read_seen, write_seen
from dbp_mae.errors import UserError
from dbp_mae.files import atomic_path, sha256_of
from pipelines.artifacts import MODEL

PRODUCTION = Path("models/production/segmenter.onnx")
SEEN = PRODUCTION.with_name("seen.csv")


def served_model() -> Path:
    """Return the model that `make serve` serves: the promoted one, else the pipeline's."""
    return PRODUCTION if PRODUCTION.exists() else MODEL


def promote(
    miou: float,
    manifest: pd.DataFrame,
    judge: Callable[[Path, pd.DataFrame], float],
    tolerance: float,
) -> str:
    """Put the new model in the place of the served one, unless it is worse.

    Args:
        miou: mIoU of the new model on the whole test split.
        manifest: the validated manifest that the new model was made from.
        judge: measures the mIoU of a model file on rows of the manifest.
        tolerance: how much mIoU the new model may lose.

    Returns:
        what was done, in one sentence.

    Raises:
        UserError: no image is left on which both models can be judged fairly.
    """
    if not PRODUCTION.exists():
        _replace(manifest)
        return f"The first model was promoted, with a held-out mIoU of {miou:.3f}: serve it."
    if sha256_of(MODEL) == sha256_of(PRODUCTION):
        write_seen(SEEN, manifest)  # a kill may have left it without
        return "The served model is the new one already."
    held_out = _held_out_from_both(manifest)
    new, served = judge(MODEL, held_out), judge(PRODUCTION, held_out)
    figures = (
        f"mIoU {new:.3f} against {served:.3f} of the served model, on {len(held_out)} images "
        "whose labels neither has seen"
    )
    if new < served - tolerance:
        return f"The served model stays, the new one is worse: {figures}."
    _replace(manifest)
    return f"The new model was promoted, {figures}: restart the service to load it."


def _held_out_from_both(manifest: pd.DataFrame) -> pd.DataFrame:
    # New labels redraw the splits: the served model may have learnt from parts that are now held out.
    held_out = labelled_in(manifest, "test")
    try:
        seen = read_seen(SEEN)
    except (FileNotFoundError, UserError):  # that of an earlier version lists no parts
        reason = f"{SEEN} does not list the images and parts that the served model has seen"
    else:
        known = is_seen(manifest, seen)[held_out.index]
        if not known.all():
            return held_out[~known]
        reason = "the served model has seen every part that is now held out"
    raise incomparable(reason)


def incomparable(reason: str) -> UserError:
    """Return the error that leaves it to a person which model is served."""
    return UserError(
        f"The new model cannot be compared with the served one ({reason}), so a person must decide: "
        f"delete {PRODUCTION} to promote the new one without a comparison."
    )


def _replace(manifest: pd.DataFrame) -> None:
    # A kill must not leave a model beside the list of another: without a list, a person decides.
    SEEN.unlink(missing_ok=True)
    with atomic_path(PRODUCTION) as temporary:
        shutil.copyfile(MODEL, temporary)
    write_seen(SEEN, manifest)
