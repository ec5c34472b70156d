"""Stage export: segmenter and control -> models/segmenter.onnx, models/scratch.onnx, how exact they are."""

import json
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from dbp_mae.data.manifest import read_manifest
from dbp_mae.data.tiles import sample_tiles
from dbp_mae.emissions import Emissions
from dbp_mae.evaluation.judging import labelled_files
from dbp_mae.export import Parity, choose_min_score, export, make_card
from dbp_mae.files import write_text
from dbp_mae.params import Params
from dbp_mae.segmentation.network import load_segmenter
from pipelines.artifacts import CONTROL, DATA, ENCODER, MODEL, SEGMENTER, VALIDATED
from pipelines.stage import run


def main(params: Params) -> None:
    """Export both; choose the threshold that ships, unless it is given; write what the report tells of it."""
    frame = read_manifest(VALIDATED)
    export_file(CONTROL, ("scratch",), None, frame, params)
    parity = export_file(SEGMENTER, ("pretrain", "finetune"), ENCODER, frame, params)
    write_text(Path("models/export/parity.json"), json.dumps(asdict(parity), indent=2))
    print(
        f"{parity.bytes / 1e6:.1f} MB; largest difference {parity.max_difference:.1e}, "
        f"same class on {parity.same_argmax_share:.3%} of the pixels"
    )
    chosen = None
    if params.export.min_score is None:
        files = labelled_files(frame, "val", params.data.source, DATA)
        chosen = choose_min_score(MODEL, files, params.evaluate.match_iou)
        print(
            "no labelled defect of the validation images is found, to choose a score by"
            if chosen is None
            else f"objects of a score of {chosen} or more are reported"
        )
    write_text(Path("models/export/min_score.json"), json.dumps({"chosen": chosen}))


def export_file(
    path: Path,
    stages: tuple[str, ...],
    encoder: Path | None,
    frame: pd.DataFrame,
    params: Params,
) -> Parity:
    """Export the segmenter at `path`, which `stages` made, beside itself."""
    segmenter, _ = load_segmenter(path)
    summary = json.loads(Path(f"models/{stages[-1]}/summary.json").read_text())
    spent = [
        Emissions.model_validate_json(Path(f"models/{stage}/emissions.json").read_bytes())
        for stage in stages
    ]
    card = make_card(params, frame, VALIDATED, segmenter, encoder, summary["val_miou"], spent)
    tiles = sample_tiles(frame, params.data, params.finetune.tile)
    return export(segmenter, card, tiles, path.with_suffix(".onnx"))


if __name__ == "__main__":
    run(main)
