"""Stage scratch: the control, the same fine-tuning from random weights -> models/scratch.safetensors."""

from pathlib import Path

import pandas as pd

from dbp_mae.data.images import pooled_statistics
from dbp_mae.data.manifest import read_manifest
from dbp_mae.encoder import EncoderSpec
from dbp_mae.params import Params
from pipelines.artifacts import CONTROL, VALIDATED
from pipelines.finetuning import train_segmenter
from pipelines.stage import run

FOLDER = Path("models/scratch")


def main(params: Params) -> None:
    """Fine-tune without pre-training, the encoder at the control's own rate."""
    recipe = params.finetune.model_copy(update={"encoder_rate": params.scratch.encoder_rate})
    params = params.model_copy(update={"finetune": recipe})
    frame = read_manifest(VALIDATED)
    train_segmenter(CONTROL, FOLDER, frame, params, _spec(frame, params), None, FOLDER.name)


def _spec(frame: pd.DataFrame, params: Params) -> EncoderSpec:
    mean, std = pooled_statistics(frame[frame["split"] == "train"])
    size = params.pretrain
    return EncoderSpec(
        size.model, size.patch, params.finetune.tile, params.data.channels, mean, std
    )


if __name__ == "__main__":
    run(main)
