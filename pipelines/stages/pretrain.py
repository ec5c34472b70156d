"""Stage pretrain: validated images, labelled or not -> models/encoder.safetensors."""

import json
from pathlib import Path

import pandas as pd

from dbp_mae import emissions
from dbp_mae.checkpoint import Checkpoint, run_folder
from dbp_mae.data.manifest import read_manifest
from dbp_mae.encoder import save_encoder
from dbp_mae.errors import UserError
from dbp_mae.files import write_text
from dbp_mae.inspection.images import encode_png
from dbp_mae.params import Params
from dbp_mae.pretraining.pictures import draw_reconstructions
from dbp_mae.pretraining.train import pretrain, summarize
from dbp_mae.training import NotFinite
from pipelines.stage import run

FOLDER = Path("models/pretrain")
MANIFEST = Path("data/validated.parquet")


def main(params: Params) -> None:
    """Pre-train the encoder; write it, its curves, figures, pictures and emissions."""
    frame = read_manifest(MANIFEST)
    checkpoint = last_state(frame, params)
    with emissions.measure(params.emissions, "pretrain", checkpoint.folder) as meter:
        try:
            result = pretrain(frame, params.data, params.pretrain, checkpoint, meter.save)
        except NotFinite as error:
            raise UserError(f"{error} {_way_on(checkpoint)}") from None

    save_encoder(Path("models/encoder.safetensors"), result.model.encoder, result.spec)
    FOLDER.mkdir(parents=True, exist_ok=True)
    result.curves.to_csv(FOLDER / "curves.csv", index=False)
    summary = summarize(result, params.pretrain, images=int((frame["split"] == "train").sum()))
    write_text(FOLDER / "summary.json", json.dumps(summary, indent=2))
    picture = draw_reconstructions(result.model, result.validation)
    (FOLDER / "reconstructions.png").write_bytes(encode_png(picture))
    write_text(FOLDER / "emissions.json", meter.emissions.model_dump_json(indent=2))
    checkpoint.discard()
    print(
        f"validation loss {summary['val_loss']:.3f}; a constant scores {summary['constant_loss']:.3f}"
    )


def last_state(frame: pd.DataFrame, params: Params) -> Checkpoint:
    """Return where the pre-training of these images with these settings keeps its last state."""
    return Checkpoint(run_folder("pretrain", frame, params.data, params.pretrain))


def _way_on(checkpoint: Checkpoint) -> str:
    if not checkpoint.path.exists():
        return "No state was kept from before."
    return (
        "It then starts from the beginning; or, after `python -m pipelines.resume "
        f"{checkpoint.folder}`, from the last state that was finite."
    )


if __name__ == "__main__":
    run(main)
