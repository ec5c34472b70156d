"""Stage pretrain: validated images, labelled or not -> models/pretrain, with the encoder."""

import json
import shutil
from pathlib import Path

import pandas as pd

from dbp_mae import emissions
from dbp_mae.data.manifest import read_manifest
from dbp_mae.data.seen import write_seen
from dbp_mae.encoder import load_encoder, save_encoder
from dbp_mae.errors import UserError
from dbp_mae.files import write_text
from dbp_mae.inspection.images import encode_png
from dbp_mae.params import Params
from dbp_mae.pretraining.pictures import draw_reconstructions
from dbp_mae.pretraining.train import pretrain, summarize
from dbp_mae.training.checkpoint import ROOT, Checkpoint, run_folder
from dbp_mae.training.loop import DivergedError
from pipelines.artifacts import ENCODER, PRETRAINED, VALIDATED
from pipelines.stage import run

NAME = "pretrain"
FILES = (
    ENCODER.name,
    "curves.csv",
    "summary.json",
    "reconstructions.png",
    "emissions.json",
)
"""What a pre-training leaves."""
SEEN = "seen.csv"
"""What it leaves besides, since the report tells of held-out images that it saw."""


def main(params: Params) -> None:
    """Pre-train the encoder, or take over that of an earlier run."""
    if params.trains_encoder:
        train(params)
    else:
        take_over(params.pretrain.source, params)


def train(params: Params) -> None:
    """Pre-train the encoder; write it, its curves, figures, pictures and emissions."""
    frame = read_manifest(VALIDATED)
    checkpoint = last_state(frame, params)
    with checkpoint.alone():
        tell_of_stopped(checkpoint)
        with emissions.measure(params.emissions, NAME, checkpoint.folder) as meter:
            try:
                result = pretrain(frame, params.data, params.pretrain, checkpoint)
            except DivergedError as error:
                raise UserError(f"{error} {_way_on(checkpoint)}") from None

        PRETRAINED.mkdir(parents=True, exist_ok=True)
        save_encoder(ENCODER, result.model.encoder, result.spec)
        result.curves.to_csv(PRETRAINED / "curves.csv", index=False)
        summary = summarize(result, params.pretrain, images=int((frame["split"] == "train").sum()))
        write_text(PRETRAINED / "summary.json", json.dumps(summary, indent=2))
        picture = draw_reconstructions(result.model, result.validation)
        (PRETRAINED / "reconstructions.png").write_bytes(encode_png(picture))
        write_text(PRETRAINED / "emissions.json", meter.emissions.model_dump_json(indent=2))
        write_seen(PRETRAINED / SEEN, frame)
        checkpoint.discard()
        print(
            f"validation loss {summary['val_loss']:.3f}; a constant scores {summary['constant_loss']:.3f}"
        )


def take_over(folder: Path, params: Params) -> None:
    """Copy what an earlier pre-training left; its energy counts for the model that comes of it.

    Raises:
        UserError: the folder lacks a file, or its encoder is not of the size that params.yaml names.
    """
    if missing := [name for name in FILES if not (folder / name).exists()]:
        raise UserError(
            f"{folder} lacks {', '.join(missing)}: pretrain.source must be data.source, or a copy of "
            f"{PRETRAINED} of an earlier run."
        )
    _, spec = load_encoder(folder / ENCODER.name)
    found = (spec.model, spec.patch, spec.channels)
    named = (params.pretrain.model, params.pretrain.patch, params.data.channels)
    if found != named:
        raise UserError(
            f"The encoder in {folder} has model, patch and channels {found}, but params.yaml has "
            f"{named}: set pretrain.model, pretrain.patch and data.channels to those of the encoder."
        )
    PRETRAINED.mkdir(parents=True, exist_ok=True)
    (PRETRAINED / SEEN).unlink(missing_ok=True)
    for name in (*FILES, SEEN):
        if (folder / name).exists():
            shutil.copyfile(folder / name, PRETRAINED / name)
    print(f"The encoder of {folder} is taken over; nothing was trained.")


def last_state(frame: pd.DataFrame, params: Params) -> Checkpoint:
    """Return where the pre-training of these images with these settings keeps its last state."""
    return Checkpoint(run_folder(NAME, frame, params.data, params.pretrain))


def tell_of_stopped(checkpoint: Checkpoint) -> None:
    """Name what was stopped last where this begins anew, for it may be what the user wants to go on."""
    if checkpoint.path.exists():
        return
    stopped = sorted(
        ROOT.glob(f"{NAME}-*/{checkpoint.path.name}"), key=lambda path: path.stat().st_mtime
    )
    if stopped:
        folder = stopped[-1].parent
        print(
            f"This begins anew, for its data, settings or code are not those of the pre-training that was "
            f"stopped in {folder}. To go on from that one, where the data are the same: stop this one, "
            f"remove {checkpoint.folder}, and `python -m pipelines.resume {folder}`."
        )


def _way_on(checkpoint: Checkpoint) -> str:
    if not checkpoint.path.exists():
        return "No state was kept from before."
    return (
        "It then starts from the beginning; or, after `python -m pipelines.resume "
        f"{checkpoint.folder}`, from the last state that was finite."
    )


if __name__ == "__main__":
    run(main)
