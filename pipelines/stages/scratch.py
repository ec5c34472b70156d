"""Stage scratch: the control, the same fine-tuning from random weights -> models/scratch.safetensors."""

from pathlib import Path

from dbp_mae import emissions
from dbp_mae.checkpoint import Checkpoint, run_folder
from dbp_mae.data.images import pooled_statistics
from dbp_mae.data.manifest import read_manifest
from dbp_mae.encoder import EncoderSpec
from dbp_mae.params import Params
from dbp_mae.segmentation.network import save_segmenter
from dbp_mae.segmentation.train import finetune
from pipelines.stage import run
from pipelines.stages.finetune import write_results

FOLDER = Path("models/scratch")


def main(params: Params) -> None:
    """Fine-tune without pre-training; write the segmenter, its curves, figures and emissions."""
    frame = read_manifest(Path("data/validated.parquet"))
    mean, std = pooled_statistics(frame[frame["split"] == "train"])
    size = params.pretrain
    spec = EncoderSpec(
        size.model, size.patch, params.finetune.tile, params.data.channels, mean, std
    )
    recipe = params.finetune.model_copy(update={"encoder_rate": params.scratch.encoder_rate})
    folder = run_folder("scratch", frame, params.data, recipe, spec)
    checkpoint = Checkpoint(folder)
    with checkpoint.alone():
        with emissions.measure(params.emissions, "scratch", folder) as meter:
            result = finetune(
                frame, Path("data"), params.data, recipe, spec, None, checkpoint, meter.save
            )
        save_segmenter(Path("models/scratch.safetensors"), result.segmenter, spec)
        write_results(FOLDER, result, meter.emissions)
        checkpoint.discard()


if __name__ == "__main__":
    run(main)
