import subprocess
import sys
from pathlib import Path

import pytest

import dbp_mae.inspection

TRAINING_ONLY = ("torch", "timm", "lightning", "pandas", "onnx", "prefect", "dvc")


@pytest.mark.parametrize("room", ["dbp_mae.inspection", "serving"])
def test_the_factory_floor_needs_no_training_library(room: str) -> None:
    """In a fresh interpreter, for other tests have imported everything."""
    root = Path(dbp_mae.inspection.__file__).parents[2]
    files = (root / room.replace(".", "/")).glob("*.py")
    modules = sorted(f"{room}.{path.stem}" for path in files if path.stem != "__init__")
    assert modules
    code = (
        f"import sys, importlib\n"
        f"for name in {modules}: importlib.import_module(name)\n"
        f"print(*sorted(set({TRAINING_ONLY}) & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
