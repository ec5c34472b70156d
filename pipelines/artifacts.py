"""The outputs of stages that several modules name; dvc.yaml has the same paths."""

from pathlib import Path

DATA = Path("data")
MANIFEST = DATA / "manifest.parquet"
VALIDATED = DATA / "validated.parquet"
"""The manifest of the images that training and evaluation may use."""

PRETRAINED = Path("models/pretrain")
ENCODER = PRETRAINED / "encoder.safetensors"
SEGMENTER, CONTROL = Path("models/segmenter.safetensors"), Path("models/scratch.safetensors")
MODEL, CONTROL_MODEL = SEGMENTER.with_suffix(".onnx"), CONTROL.with_suffix(".onnx")

METRICS = Path("reports/metrics.json")
EMISSIONS = Path("reports/emissions.json")
REPORT = Path("reports/index.html")
