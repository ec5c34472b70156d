"""Stage export: segmenter -> models/segmenter.onnx and how far it is from the network."""

import json
from dataclasses import asdict
from pathlib import Path

from dbp_mae.data.manifest import read_manifest
from dbp_mae.data.tiles import sample_tiles
from dbp_mae.emissions import Emissions
from dbp_mae.export import export, make_card
from dbp_mae.files import write_text
from dbp_mae.params import Params
from dbp_mae.segmentation.network import load_segmenter
from pipelines.stage import run


def main(params: Params) -> None:
    """Export the segmenter; write the file and the parity report."""
    manifest = Path("data/validated.parquet")
    frame = read_manifest(manifest)
    segmenter, _ = load_segmenter(Path("models/segmenter.safetensors"))
    finetuned = json.loads(Path("models/finetune/summary.json").read_text())
    spent = [
        Emissions.model_validate_json(Path(f"models/{stage}/emissions.json").read_bytes())
        for stage in ("pretrain", "finetune")
    ]
    encoder = Path("models/pretrain/encoder.safetensors")
    miou = finetuned["val_miou"]
    card = make_card(params, frame, manifest, segmenter, encoder, miou, spent)
    tiles = sample_tiles(frame, params.data, params.finetune.tile)
    parity = export(segmenter, card, tiles, Path("models/segmenter.onnx"))
    write_text(Path("models/export/parity.json"), json.dumps(asdict(parity), indent=2))
    print(
        f"{parity.bytes / 1e6:.1f} MB; largest difference {parity.max_difference:.1e}, "
        f"same class on {parity.same_argmax_share:.3%} of the pixels"
    )


if __name__ == "__main__":
    run(main)
