"""Stage scratch: the control, fine-tuned from random weights at the same steps -> models/scratch.onnx."""

from pathlib import Path

from dbp_mae import emissions
from dbp_mae.checkpoint import Checkpoint, run_folder
from dbp_mae.data.images import pooled_statistics
from dbp_mae.data.manifest import read_manifest
from dbp_mae.data.tiles import sample_tiles
from dbp_mae.encoder import EncoderSpec
from dbp_mae.export import export, make_card
from dbp_mae.params import Params
from dbp_mae.segmentation.train import finetune, summarize
from pipelines.stage import run
from pipelines.stages.finetune import write_results

FOLDER = Path("models/scratch")


def main(params: Params) -> None:
    """Fine-tune without pre-training; write the model file, curves, figures and emissions."""
    manifest = Path("data/validated.parquet")
    frame = read_manifest(manifest)
    mean, std = pooled_statistics(frame[frame["split"] == "train"])
    size = params.pretrain
    spec = EncoderSpec(
        size.model, size.patch, params.finetune.tile, params.data.channels, mean, std
    )
    folder = run_folder("scratch", frame, params.data, params.finetune, spec)
    checkpoint = Checkpoint(folder)
    with emissions.measure(params.emissions, "scratch", folder) as meter:
        result = finetune(
            frame, Path("data"), params.data, params.finetune, spec, None, checkpoint, meter.save
        )
    miou = summarize(result)["val_miou"]
    spent = [meter.emissions]
    card = make_card(params, frame, manifest, result.segmenter, None, miou, spent)
    tiles = sample_tiles(frame, params.data, params.finetune.tile)
    export(result.segmenter, card, tiles, Path("models/scratch.onnx"))
    write_results(FOLDER, result, meter.emissions)
    checkpoint.discard()


if __name__ == "__main__":
    run(main)
