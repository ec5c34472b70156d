"""A project whose stages before the report have run, its figures known."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dbp_mae.data.manifest import manifest_from_rows, write_manifest
from dbp_mae.data.seen import write_seen
from dbp_mae.emissions import Emissions, Hardware
from dbp_mae.files import write_text
from dbp_mae.inspection.images import encode_png

METRICS: dict[str, Any] = {
    "miou": 0.7421,
    "miou_low": 0.6893,
    "miou_high": 0.7802,
    "scratch_miou": 0.653,
    "gain": 0.0891,
    "gain_low": 0.0412,
    "gain_high": 0.1305,
    "iou": {"wire": 0.81, "epoxy": 0.52},
    "defects": {"labelled": 128, "found_share": 0.9219, "false_per_image": 0.21},
    "images": {
        "defective": 40,
        "escape_share": 0.025,
        "escape_low": 0.0044,
        "escape_high": 0.1288,
        "good": 35,
        "overkill_share": 0.0571,
        "overkill_low": 0.0158,
        "overkill_high": 0.1862,
        "test": 76,
        "groups": 15,
    },
}


def write_project(root: Path, model: Path) -> None:
    """Write what the stages before the report leave behind."""
    models, evaluation = root / "models", root / "reports/evaluation"
    for folder in ("pretrain", "finetune", "scratch", "export"):
        (models / folder).mkdir(parents=True)
    (evaluation / "overlays").mkdir(parents=True)
    shutil.copy(model, models / "segmenter.onnx")
    parity = {"tiles": 64, "max_difference": 1.3e-6, "same_argmax_share": 1.0, "opset": 20}
    write_text(models / "export/parity.json", json.dumps(parity))
    write_text(models / "export/min_score.json", json.dumps({"chosen": 0.5}))
    write_trainings(models)

    picture = encode_png(np.zeros((8, 24, 3), dtype=np.uint8))
    (models / "pretrain/reconstructions.png").write_bytes(picture)
    (evaluation / "overlays/01.png").write_bytes(picture)
    write_evaluation(evaluation)
    write_text(root / "reports/metrics.json", json.dumps(METRICS))

    rows = [
        {"path": f"images/{n}.png", "group": f"part{n // 2}", "split": split, "label_state": "labelled",
         "mask_path": f"masks/{n}.png", "pixels": [90, 8, 2 * (n % 2)]}
        for n, split in enumerate(["train"] * 4 + ["val"] * 2 + ["test"] * 2)
    ]  # fmt: skip
    unlabelled = {"path": "images/u.png", "group": "part9", "label_state": "unlabelled"}
    rows += [{**unlabelled, "split": "train"}, {**unlabelled, "split": "test"}]
    (root / "data").mkdir()
    frame = manifest_from_rows(rows)
    write_manifest(frame, root / "data/validated.parquet")
    write_text(root / "data/quarantine.csv", "path,rule,reason\nx.png,a,b\nx.png,c,d\ny.png,a,b\n")
    write_seen(models / "pretrain/seen.csv", frame)


def write_trainings(models: Path) -> None:
    steps = np.arange(100, 801, 100)
    loss = 0.45 + 0.5 * np.exp(-steps / 300)
    curves = {"step": steps, "seconds": steps / 10, "train_loss": loss, "val_loss": loss}
    pd.DataFrame(curves).to_csv(models / "pretrain/curves.csv", index=False)
    summary = {
        "val_loss": 0.48, "constant_loss": 0.98, "seconds": 80, "steps": 800, "parameters": 810112,
        "images": 95, "model": "nano", "optimizer": "adamw", "decorrelation": "paper",
        "averaging": 0.05,
    }  # fmt: skip
    write_text(models / "pretrain/summary.json", json.dumps(summary))
    for name, top in (("finetune", 0.75), ("scratch", 0.66)):
        miou = np.where(steps % 200 == 0, top * (1 - np.exp(-steps / 200)), np.nan)
        curves = {"step": steps, "seconds": steps / 10, "train_loss": loss, "val_miou": miou}
        pd.DataFrame(curves).to_csv(models / name / "curves.csv", index=False)
        summary = {"val_miou": top, "best_step": 800, "seconds": 80, "steps": 800,
                   "background_offset": 0.25, "labelled_images": 35}  # fmt: skip
        write_text(models / name / "summary.json", json.dumps(summary))
    for name, wh in (("pretrain", 10.0), ("finetune", 6.0), ("scratch", 5.0)):
        write_text(models / name / "emissions.json", spent(wh / 1000).model_dump_json())


def write_evaluation(folder: Path) -> None:
    classes = {"class": ["wire", "epoxy"], "color": ["#2f7ed8", "#d8572f"], "defect": [False, True],
               "pixels": [8000, 900], "iou": [0.81, 0.52], "scratch_iou": [0.75, np.nan]}  # fmt: skip
    pd.DataFrame(classes).to_csv(folder / "classes.csv", index=False)
    per_image = {"path": ["images/a.png", "images/b.png"], "group": ["p", "q"], "miou": [0.2, 0.9],
                 "defects": [2, 0], "found": [1, 0], "false": [1, 0], "verdict": ["reject", "accept"],
                 "seconds": [0.03, 0.05], "overlay": ["01.png", None]}  # fmt: skip
    pd.DataFrame(per_image).to_csv(folder / "per_image.csv", index=False)
    score = np.linspace(0, 1, 21)
    thresholds = {"min_score": score, "found_share": 1 - score, "false_per_image": 1 - score,
                  "escape_share": score, "overkill_share": 1 - score}  # fmt: skip
    pd.DataFrame(thresholds).to_csv(folder / "thresholds.csv", index=False)


def spent(kwh: float, measured: float = 0.75) -> Emissions:
    parts = {"cpu": 0.15, "gpu": measured, "ram": 0.85 - measured}
    hardware = Hardware(cpu="AMD EPYC", cpus=16, gpu="1 x NVIDIA H200", gpus=1, ram_gb=128.0,
                        measured=["gpu"] if measured else [])  # fmt: skip
    return Emissions(
        seconds=60.0, kwh=kwh, measured_kwh=measured * kwh, estimated_kwh=(1 - measured) * kwh,
        co2_kg=0.4 * kwh, grid_kg_per_kwh=0.4, country="DEU", hardware=hardware,
        **{f"{part}_kwh": share * kwh for part, share in parts.items()},
    )  # fmt: skip
