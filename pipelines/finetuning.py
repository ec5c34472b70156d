"""A fine-tuning as a stage: one process at a time, metered, going on where it was stopped, written down."""

import json
from pathlib import Path

import pandas as pd
from torch import Tensor

from dbp_mae import emissions
from dbp_mae.emissions import Emissions
from dbp_mae.encoder import EncoderSpec
from dbp_mae.files import write_text
from dbp_mae.params import Params
from dbp_mae.segmentation.network import save_segmenter
from dbp_mae.segmentation.train import Finetuned, finetune, summarize
from dbp_mae.training.checkpoint import Checkpoint, run_folder
from pipelines.artifacts import DATA


def train_segmenter(
    path: Path,
    folder: Path,
    frame: pd.DataFrame,
    params: Params,
    spec: EncoderSpec,
    weights: dict[str, Tensor] | None,
    run: str,
) -> None:
    """Fine-tune as `params.finetune` says; write the segmenter to `path`, the rest to `folder`.

    Args:
        folder: takes the curves, figures and emissions; its name is the stage's.
        frame: the validated manifest.
        weights: the encoder's at the start; None: random ones.
        run: names the training's checkpoints, with a hash of its data, settings and code.
    """
    checkpoint = Checkpoint(run_folder(run, frame, params.data, params.finetune, spec))
    with checkpoint.alone():
        with emissions.measure(params.emissions, folder.name, checkpoint.folder) as meter:
            result = finetune(frame, DATA, params.data, params.finetune, spec, weights, checkpoint)
        save_segmenter(path, result.segmenter, spec)
        _write_results(folder, result, meter.emissions)
        checkpoint.discard()


def _write_results(folder: Path, result: Finetuned, spent: Emissions) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    result.curves.to_csv(folder / "curves.csv", index=False)
    write_text(folder / "summary.json", json.dumps(summarize(result), indent=2))
    write_text(folder / "emissions.json", spent.model_dump_json(indent=2))
    print(f"validation mIoU {result.best['val_miou']:.3f} at step {result.best['step']:.0f}")
