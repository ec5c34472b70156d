"""Stage evaluate: the shipped file and the held-out images -> reports/metrics.json and pictures."""

import json
from pathlib import Path

from dbp_mae.data.manifest import read_manifest
from dbp_mae.evaluation.evaluate import evaluate
from dbp_mae.files import write_text
from dbp_mae.inspection.images import encode_png
from dbp_mae.params import Params
from pipelines.artifacts import CONTROL_MODEL, DATA, METRICS, MODEL, VALIDATED
from pipelines.stage import run

FOLDER = Path("reports/evaluation")


def main(params: Params) -> None:
    """Judge models/segmenter.onnx beside its control; write figures, tables and overlays."""
    result = evaluate(
        model=MODEL,
        scratch=CONTROL_MODEL,
        frame=read_manifest(VALIDATED),
        source=params.data.source,
        data_folder=DATA,
        params=params,
    )
    overlays = FOLDER / "overlays"
    overlays.mkdir(parents=True, exist_ok=True)
    for name, picture in result.overlays.items():
        (overlays / name).write_bytes(encode_png(picture))
    result.classes.to_csv(FOLDER / "classes.csv", index=False)
    result.per_image.to_csv(FOLDER / "per_image.csv", index=False)
    result.thresholds.to_csv(FOLDER / "thresholds.csv", index=False)
    write_text(METRICS, json.dumps(result.metrics, indent=2) + "\n")
    print(f"mIoU {result.metrics['miou']}; from scratch {result.metrics['scratch_miou']}")


if __name__ == "__main__":
    run(main)
