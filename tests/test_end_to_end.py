"""The real pipeline, small, from rendered images to answers over HTTP."""

import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from default_params import write_default_params
from service_process import served

from dbp_mae.data.images import read_mask
from dbp_mae.data.manifest import read_manifest
from dbp_mae.files import sha256_of
from dbp_mae.inspection.images import decode_samples
from dbp_mae.segmentation.metrics import confusion_matrix, mean_iou

ROOT = Path(__file__).parents[1]
SMALL: dict[str, dict[str, Any]] = {
    "data": {"val_share": 0.2, "test_share": 0.4},
    "render": {"devices": 6, "views": 2, "labelled_share": 0.9, "size": 128},
    "pretrain": {"steps": 20, "warmup_steps": 2, "batch": 16, "crop": 32, "validate_every": 10},
    "finetune": {"steps": 10, "warmup_steps": 2, "batch": 4, "tile": 64, "decoder_width": 8},
    "export": {"overlap": 16},
}


def dvc(folder: Path, *arguments: str) -> str:
    """Run DVC in `folder` with this environment's python first on the path; return what it prints."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a workspace in which `dvc repro` has run with small settings."""
    folder = tmp_path_factory.mktemp("workspace")
    for name in ("dbp_mae", "pipelines"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, folder / name)
    file = write_default_params(folder)
    params = yaml.safe_load(file.read_text())
    for block, changes in SMALL.items():
        params[block] |= changes
    file.write_text(yaml.safe_dump(params, sort_keys=False))
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    dvc(folder, "init", "--quiet")
    dvc(folder, "config", "core.analytics", "false")
    dvc(folder, "remote", "add", "--default", "local", str(tmp_path_factory.mktemp("remote")))
    dvc(folder, "repro")
    return folder


def test_second_run_does_nothing(pipeline: Path) -> None:
    assert "up to date" in dvc(pipeline, "repro")


def test_reports_are_complete(pipeline: Path) -> None:
    metrics = json.loads((pipeline / "reports/metrics.json").read_text())
    emissions = json.loads((pipeline / "reports/emissions.json").read_text())
    assert 0 <= metrics["miou"] <= 1
    assert 0 <= metrics["scratch_miou"] <= 1
    assert emissions["total"]["kwh"] > 0
    page = (pipeline / "reports/index.html").read_text()
    for loaded in ('src="http', 'href="http', "url(http", "@import"):
        assert loaded not in page, "the page must open without internet"


def test_served_masks_are_the_evaluated_ones(pipeline: Path, tmp_path: Path) -> None:
    frame = read_manifest(pipeline / "data/validated.parquet")
    test = frame[(frame["split"] == "test") & (frame["label_state"] == "labelled")]
    source = pipeline / "data/wirebond"
    confusion = np.zeros((5, 5), np.int64)
    with served(tmp_path, pipeline / "models/segmenter.onnx") as client:
        for row in test.itertuples():
            image = (source / row.path).read_bytes()
            answer = client.post("/segment?mask=true", content=image).json()
            mask = decode_samples(base64.b64decode(answer["mask"]))[..., 0]
            confusion += confusion_matrix(mask, read_mask(pipeline / "data" / row.mask_path), 4)
    metrics = json.loads((pipeline / "reports/metrics.json").read_text())
    assert answer["model"]["sha256"] == sha256_of(pipeline / "models/segmenter.onnx")
    assert float(mean_iou(confusion)) == pytest.approx(metrics["miou"], abs=1e-4)


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file that the pipeline made and DVC holds."""
    listed = dvc(folder, "ls", ".", "--recursive", "--dvc-only").split()
    assert listed
    return {name: sha256_of(folder / name) for name in listed}


def test_remote_brings_every_byte_back(pipeline: Path) -> None:
    before = digests(pipeline)
    dvc(pipeline, "push")
    shutil.rmtree(pipeline / ".dvc/cache")
    for name in before:
        (pipeline / name).unlink()
    dvc(pipeline, "pull")
    assert digests(pipeline) == before
