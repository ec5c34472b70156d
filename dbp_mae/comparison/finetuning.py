"""What an encoder is worth: fine-tuned, exported, and judged by the code that serves and evaluates."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from dbp_mae.comparison.subject import Subject
from dbp_mae.data.tiles import sample_tiles
from dbp_mae.encoder import load_encoder
from dbp_mae.evaluation.evaluate import evaluate
from dbp_mae.export import export, make_card
from dbp_mae.files import write_text
from dbp_mae.params import FinetuneParams, Params
from dbp_mae.segmentation.train import finetune, summarize
from dbp_mae.training.checkpoint import Checkpoint


def held_out_miou(
    encoder: Path, recipe: FinetuneParams, params: Params, subject: Subject, folder: Path
) -> float | None:
    """Return the held-out mIoU of a segmenter on a pre-trained encoder; None where no class is labelled.

    The figure is kept in `folder`, and so is the state of a training that was killed.

    Raises:
        UserError: a split has no labelled image, or a file cannot be read.
    """
    file = miou_file(folder)
    if not file.exists():
        miou = _judge(encoder, recipe, params, subject, Checkpoint(folder))
        write_text(file, json.dumps(miou))
    held_out: float | None = json.loads(file.read_text(encoding="utf-8"))
    return held_out


def miou_file(folder: Path) -> Path:
    """Return where a finished fine-tuning keeps its mIoU."""
    return folder / "miou.json"


def _judge(
    encoder: Path,
    recipe: FinetuneParams,
    params: Params,
    subject: Subject,
    checkpoint: Checkpoint,
) -> float | None:
    params = params.model_copy(update={"finetune": recipe})
    weights, spec = load_encoder(encoder)
    frame = subject.frame
    tuned = finetune(frame, subject.folder, params.data, recipe, spec, weights, checkpoint)
    miou = summarize(tuned)["val_miou"]
    card = make_card(params, frame, subject.manifest, tuned.segmenter, encoder, miou, [])
    tiles = sample_tiles(frame, params.data, recipe.tile)
    with TemporaryDirectory() as scratch:
        model = Path(scratch) / "segmenter.onnx"
        export(tuned.segmenter, card, tiles, model)
        judged = evaluate(model, None, frame, params.data.source, subject.folder, params)
    checkpoint.discard()
    held_out: float | None = judged.metrics["miou"]
    return held_out
