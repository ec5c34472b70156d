"""Pre-training and the benchmarks run where only the packages that train are installed."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TRAIN = ("torch", "timm", "lightning", "numpy", "pandas", "pyarrow", "PIL", "cv2", "pydantic")
COME_WITH_THEM = ("filelock", "pydantic_core", "pynvml", "safetensors", "tqdm", "yaml")
"""pynvml is asked for where a GPU's counter may be read, and may be missing."""
ROOMS = ("dbp_mae", "benchmarks", "pipelines")
FINETUNES = ROOT / "benchmarks/paper_scale.py"
"""Measures fine-tuning as well, which augments and segments."""


# Other libraries try more, and do without; so only imports from here are refused.
GUARD = f"""
import builtins, importlib, sys
allowed = {{*sys.stdlib_module_names, *{ROOMS}, *{TRAIN}, *{COME_WITH_THEM}}}
real = builtins.__import__
def guarded(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {{}}).get("__name__", "")
    if importer.partition(".")[0] in {ROOMS} and level == 0 and name.partition(".")[0] not in allowed:
        raise ImportError(f"{{importer}} imports {{name}}")
    return real(name, globals, locals, fromlist, level)
builtins.__import__ = guarded
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def imports(*modules: str) -> subprocess.CompletedProcess[str]:
    """Import modules in a fresh interpreter, for other tests have imported everything."""
    command = [sys.executable, "-c", GUARD, *modules]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("room", ["dbp_mae/pretraining", "benchmarks"])
def test_only_packages_that_train_are_needed(room: str) -> None:
    files = set((ROOT / room).glob("*.py")) - {FINETUNES}
    modules = [f"{room.replace('/', '.')}.{path.stem}" for path in files]
    assert len(modules) > 1
    done = imports(*modules)
    assert done.returncode == 0, done.stderr


def test_other_packages_are_refused() -> None:
    assert "dbp_mae.export imports onnx" in imports("dbp_mae.export").stderr
