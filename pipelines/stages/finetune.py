"""Stage finetune: encoder and labelled training images -> models/segmenter.safetensors."""

from pathlib import Path

from dbp_mae.data.manifest import read_manifest
from dbp_mae.encoder import load_encoder
from dbp_mae.files import sha256_of
from dbp_mae.params import Params
from pipelines.artifacts import ENCODER, SEGMENTER, VALIDATED
from pipelines.finetuning import train_segmenter
from pipelines.stage import run

FOLDER = Path("models/finetune")


def main(params: Params) -> None:
    """Fine-tune from the pre-trained encoder."""
    weights, spec = load_encoder(ENCODER)
    name = f"{FOLDER.name}-{sha256_of(ENCODER)[:12]}"
    train_segmenter(SEGMENTER, FOLDER, read_manifest(VALIDATED), params, spec, weights, name)


if __name__ == "__main__":
    run(main)
