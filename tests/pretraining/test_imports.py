"""Pre-training and the benchmarks run where only the packages that train are installed."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REFUSED = (
    "albumentations",
    "bentoml",
    "codecarbon",
    "dvc",
    "fastapi",
    "great_expectations",
    "hydra",
    "imagehash",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "prefect",
    "segmentation_models_pytorch",
    "transformers",
)
FINETUNES = ROOT / "benchmarks/paper_scale.py"
"""Measures fine-tuning as well, which augments and segments."""


@pytest.mark.parametrize("room", ["dbp_mae/pretraining", "benchmarks"])
def test_only_packages_that_train_are_needed(room: str) -> None:
    """In a fresh interpreter, for other tests have imported everything."""
    files = sorted(set((ROOT / room).glob("*.py")) - {FINETUNES})
    modules = [f"{room.replace('/', '.')}.{path.stem}" for path in files]
    assert len(modules) > 1
    code = (
        "import sys, importlib\n"
        f"sys.modules.update(dict.fromkeys({REFUSED}))\n"  # None: its import raises ImportError
        f"for name in {modules}: importlib.import_module(name)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
