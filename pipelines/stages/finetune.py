"""Stage finetune: encoder and labelled training images -> models/segmenter.safetensors."""

import json
from pathlib import Path

from dbp_mae import emissions
from dbp_mae.checkpoint import Checkpoint, run_folder
from dbp_mae.data.manifest import read_manifest
from dbp_mae.emissions import Emissions
from dbp_mae.encoder import load_encoder
from dbp_mae.files import sha256_of, write_text
from dbp_mae.params import Params
from dbp_mae.segmentation.network import save_segmenter
from dbp_mae.segmentation.train import Finetuned, finetune, summarize
from pipelines.stage import run

FOLDER = Path("models/finetune")


def main(params: Params) -> None:
    """Fine-tune the segmenter; write it, its curves, figures and emissions."""
    encoder = Path("models/pretrain/encoder.safetensors")
    weights, spec = load_encoder(encoder)
    frame = read_manifest(Path("data/validated.parquet"))
    name = f"finetune-{sha256_of(encoder)[:12]}"
    folder = run_folder(name, frame, params.data, params.finetune, spec)
    checkpoint = Checkpoint(folder)
    with checkpoint.alone():
        with emissions.measure(params.emissions, "finetune", folder) as meter:
            result = finetune(
                frame,
                Path("data"),
                params.data,
                params.finetune,
                spec,
                weights,
                checkpoint,
                meter.save,
            )
        save_segmenter(Path("models/segmenter.safetensors"), result.segmenter, spec)
        write_results(FOLDER, result, meter.emissions)
        checkpoint.discard()


def write_results(folder: Path, result: Finetuned, spent: Emissions) -> None:
    """Write the curves, figures and emissions of a fine-tuning."""
    folder.mkdir(parents=True, exist_ok=True)
    result.curves.to_csv(folder / "curves.csv", index=False)
    write_text(folder / "summary.json", json.dumps(summarize(result), indent=2))
    write_text(folder / "emissions.json", spent.model_dump_json(indent=2))
    print(f"validation mIoU {result.best['val_miou']:.3f} at step {result.best['step']:.0f}")


if __name__ == "__main__":
    run(main)
