"""The pre-training loop: it learns, resumes to the bit, and leaves a plain timm model."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from default_params import default_params
from safetensors import safe_open
from watched_checkpoint import WatchedCheckpoint

from dbp_mae.data.ingest import ingest
from dbp_mae.data.manifest import write_manifest
from dbp_mae.data.wirebond import render_dataset
from dbp_mae.encoder import create_encoder, load_encoder, resample_positions, save_encoder
from dbp_mae.errors import UserError
from dbp_mae.params import DataParams, PretrainParams
from dbp_mae.pretraining.images import PretrainingImages, fixed_crops
from dbp_mae.pretraining.patch_whitening import whiten_patches
from dbp_mae.pretraining.pictures import draw_reconstructions
from dbp_mae.pretraining.run import Pretraining, create_run
from dbp_mae.pretraining.train import Pretrained, pretrain, summarize
from dbp_mae.training.checkpoint import Checkpoint
from dbp_mae.training.interruption import Interrupted

SMALL = {
    "steps": 20,
    "warmup_steps": 2,
    "batch": 16,
    "crop": 32,
    "validate_every": 10,
    "checkpoint_every": 10,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataParams:
    source = tmp_path_factory.mktemp("wirebond")
    params = default_params()
    render = params.render.model_copy(
        update={"devices": 6, "views": 2, "labelled_share": 0.9, "size": 96}
    )
    render_dataset(source, render)
    return params.data.model_copy(update={"source": source})


@pytest.fixture(scope="module")
def frame(data: DataParams, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return ingest(data.source, data, tmp_path_factory.mktemp("masks"))


def settings(update: str = "function-preserving", **changes: object) -> PretrainParams:
    params = default_params().pretrain
    eps = {"eps": 0.04, "total_eps": None} if update == "paper" else {}
    decorrelation = params.decorrelation.model_copy(update={"update": update, **eps})
    return params.model_copy(update={**SMALL, "decorrelation": decorrelation, **changes})


def run(frame: pd.DataFrame, data: DataParams, params: PretrainParams, folder: Path) -> Pretrained:
    return pretrain(frame, data, params, Checkpoint(folder))


@pytest.fixture(scope="module")
def trained(
    frame: pd.DataFrame, data: DataParams, tmp_path_factory: pytest.TempPathFactory
) -> Pretrained:
    return run(frame, data, settings(), tmp_path_factory.mktemp("trained"))


def test_learns(trained: Pretrained) -> None:
    losses = trained.curves["val_loss"]
    assert losses.iloc[-1] < losses.iloc[0]
    assert trained.constant_loss == pytest.approx(1.0, abs=0.05)
    assert trained.curves["correlation"].notna().all()
    assert (trained.curves["data_wait_share"] < 1).all()


TRAINING = f"""
import sys
from pathlib import Path
import torch
from dbp_mae.training.checkpoint import Checkpoint
from dbp_mae.data.manifest import read_manifest
from dbp_mae.training.interruption import Interrupted
from dbp_mae.params import DataParams, PretrainParams
from dbp_mae.pretraining.train import pretrain

torch.set_num_threads({torch.get_num_threads()})
data = DataParams.model_validate_json(sys.argv[1])
params = PretrainParams.model_validate_json(sys.argv[2])
try:
    pretrain(read_manifest(Path("frame.parquet")), data, params, Checkpoint(Path("stopped")))
except Interrupted as stop:
    print(stop)
"""


class Killed(Exception):
    """Stands for the power cut."""


@pytest.mark.parametrize(
    ("optimizer", "update"),
    [
        ("adamw", "none"),
        ("muon", "paper"),
        ("muon", "function-preserving"),
        ("soap", "function-preserving"),
    ],
)
def test_resume_is_bit_identical(
    optimizer: str, update: str, frame: pd.DataFrame, data: DataParams, tmp_path: Path
) -> None:
    params = settings(update, optimizer=optimizer, checkpoint_every=9)  # R moves after 8 and 16
    whole = run(frame, data, params, tmp_path / "whole")

    def kill() -> None:
        raise Killed

    with pytest.raises(Killed):
        pretrain(frame, data, params, WatchedCheckpoint(tmp_path / "killed", kill))
    resumed = run(frame, data, params, tmp_path / "killed")
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name
    measured = ["seconds", "images_per_second", "data_wait_share"]
    pd.testing.assert_frame_equal(
        whole.curves.drop(columns=measured), resumed.curves.drop(columns=measured)
    )
    assert whole.curves["val_loss"].iloc[-1] < whole.curves["val_loss"].iloc[0]


@pytest.mark.parametrize(("method", "last"), [("optimize", 13), ("validate", 20)])
def test_a_signal_keeps_the_step_it_came_in(
    method: str,
    last: int,
    frame: pd.DataFrame,
    data: DataParams,
    trained: Pretrained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A training that was stopped in its last validation is no success either."""

    def interrupted(training: Pretraining, *arguments: Any) -> Any:
        outcome = undisturbed(training, *arguments)
        if training.step == (last if method == "validate" else last - 1):
            signal.raise_signal(signal.SIGTERM)
        return outcome

    undisturbed = getattr(Pretraining, method)
    with monkeypatch.context() as patch:
        patch.setattr(Pretraining, method, interrupted)
        with pytest.raises(Interrupted, match=f"pretrain was stopped after step {last} of 20"):
            run(frame, data, settings(), tmp_path)
    state = Checkpoint(tmp_path).load()
    assert state is not None
    assert state["step"] == last
    resumed = run(frame, data, settings(), tmp_path)
    for name, weight in trained.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name


@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes would need two GPUs")
@pytest.mark.parametrize(("devices", "workers"), [(1, 2), (2, 1)])
def test_a_termination_of_the_process_group_loses_no_step(
    devices: int, workers: int, frame: pd.DataFrame, data: DataParams, tmp_path: Path
) -> None:
    write_manifest(frame, tmp_path / "frame.parquet")
    params = settings(steps=2000, devices=devices, workers=workers)
    arguments = (data.model_dump_json(), params.model_dump_json())
    with subprocess.Popen(
        [sys.executable, "-c", TRAINING, *arguments],
        cwd=tmp_path,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while not re.search(r" [2-9]\d+/2000 ", process.stderr.readline()):
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGTERM)
        assert "Traceback" not in process.stderr.read()
        said = re.fullmatch(
            r"pretrain was stopped after step (\d+) of 2000: .*\n", process.stdout.read()
        )
    state = Checkpoint(tmp_path / "stopped").load()
    assert said is not None
    assert state is not None
    assert state["step"] == int(said[1])


def test_eps_is_checked_before_the_first_step_alone(
    frame: pd.DataFrame, data: DataParams, tmp_path: Path
) -> None:
    calm = settings("paper")
    decorrelation = calm.decorrelation.model_copy(update={"eps": 1.9})
    wild = calm.model_copy(update={"decorrelation": decorrelation})
    with pytest.raises(UserError, match=r"eps \(1\.9\) is too large for the inputs of blocks"):
        run(frame, data, wild, tmp_path)
    run(frame, data, calm, tmp_path)
    run(frame, data, wild, tmp_path)  # no step is left to take


@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes would need two GPUs")
@pytest.mark.usefixtures("one_thread")
def test_two_devices_give_what_one_gives(
    frame: pd.DataFrame, data: DataParams, tmp_path: Path
) -> None:
    shared = run(frame, data, settings(devices=2), tmp_path / "shared")
    alone = run(frame, data, settings(accumulate=2), tmp_path / "alone")
    figures = ["step", "train_loss", "val_loss", "correlation"]
    pd.testing.assert_frame_equal(shared.curves[figures], alone.curves[figures])


@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes would need two GPUs")
def test_what_one_device_meets_alone_is_one_sentence(
    frame: pd.DataFrame, data: DataParams, tmp_path: Path
) -> None:
    training = frame.index[frame["split"] == "train"]
    missing = frame.assign(path=frame["path"].where(frame.index != training[0], "gone.png"))
    with pytest.raises(UserError, match=r"\A\S*gone\.png: .*Restore it.*\Z"):
        run(missing, data, settings(devices=2), tmp_path)


def test_every_seed_whitens_by_the_same_training_images(
    frame: pd.DataFrame, data: DataParams
) -> None:
    images = PretrainingImages.of(frame, data)
    models = [create_run(images, settings(seed=seed)).plain_model for seed in (0, 1)]
    embedding = create_encoder(create_run(images, settings()).spec).patch_embed.proj
    crops, _ = fixed_crops(images.training, settings())
    with torch.no_grad():
        whiten_patches(embedding, models[0].normalize(crops))
    wanted = embedding.parametrizations["weight"][0].decorrelator
    for model in models:
        (whitened,) = model.encoder.patch_embed.proj.parametrizations["weight"]
        assert torch.equal(whitened.decorrelator, wanted)


def test_file_is_a_plain_timm_model(trained: Pretrained, tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    save_encoder(path, trained.model.encoder, trained.spec)
    with safe_open(path, framework="pt") as file:
        arguments = json.loads(file.metadata()["timm"])
    weights, spec = load_encoder(path)
    assert spec == trained.spec
    plain = timm.create_model(arguments.pop("name"), **arguments).eval()
    plain.load_state_dict(weights)
    images = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(plain(images), trained.model.encoder(images))


def test_positions_are_resampled(trained: Pretrained) -> None:
    weights = trained.model.encoder.state_dict()
    larger = create_encoder(trained.spec.resized(64))
    larger.load_state_dict(resample_positions(weights, larger))
    assert larger.pos_embed is not None
    assert larger.pos_embed.shape == (1, 65, 128)


def test_summary_and_pictures(trained: Pretrained) -> None:
    summary = summarize(trained, settings(), images=6)
    assert summary["steps"] == 20
    assert summary["val_loss"] == trained.curves["val_loss"].iloc[-1]
    assert summary["decorrelation"] == "function-preserving (patch_embed, qkv, proj, fc1, fc2)"
    json.dumps(summary)
    picture = draw_reconstructions(trained.model, trained.validation, count=4)
    assert picture.shape == (3 * 40, 4 * 40, 1)
    crop, hidden, drawn = (picture[top : top + 32, 4:36, 0] for top in (4, 44, 84))
    patches = [part.reshape(4, 8, 4, 8).swapaxes(1, 2) for part in (crop, hidden, drawn)]
    visible = (patches[0] == patches[1]).all(axis=(2, 3))
    assert visible.sum() == 4
    np.testing.assert_array_equal(patches[2][visible], patches[0][visible])
    assert (patches[2][~visible] != patches[1][~visible]).any()


def test_sample_below_one_token_is_refused(
    frame: pd.DataFrame, data: DataParams, tmp_path: Path
) -> None:
    params = settings()
    tiny = params.decorrelation.model_copy(update={"sample": 1e-6})
    with pytest.raises(UserError, match=r"decorrelation\.sample"):
        run(frame, data, params.model_copy(update={"decorrelation": tiny}), tmp_path)
