"""Fine-tuning: the loss, the network's file, learning and resuming."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from default_params import default_params
from timm.layers import use_fused_attn
from watched_checkpoint import WatchedCheckpoint

from dbp_mae.data.ingest import ingest
from dbp_mae.data.labels import IGNORED
from dbp_mae.data.tiles import LabelledImages, TileBatch, ValidationTiles
from dbp_mae.data.wirebond import render_dataset
from dbp_mae.encoder import EncoderSpec, create_encoder
from dbp_mae.errors import UserError
from dbp_mae.params import DataParams, FinetuneParams
from dbp_mae.segmentation.background import OFFSETS
from dbp_mae.segmentation.loss import SegmentationLoss
from dbp_mae.segmentation.metrics import confusion_matrix, mean_iou
from dbp_mae.segmentation.network import SegmentationNetwork, load_segmenter, save_segmenter
from dbp_mae.segmentation.train import Finetuned, Finetuning, finetune, summarize
from dbp_mae.training.checkpoint import Checkpoint

SPEC = EncoderSpec("nano", 8, 64, 1, (0.4,), (0.2,))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, DataParams, Path]:
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("data")
    params = default_params()
    render = params.render.model_copy(
        update={"devices": 4, "views": 2, "labelled_share": 1.0, "size": 96, "seed": 2}
    )
    render_dataset(source, render)
    shares = {"val_share": 0.2, "test_share": 0.4}
    settings = params.data.model_copy(update={"source": source, **shares})
    return ingest(source, settings, folder / "masks"), settings, folder


def settings(**changes: object) -> FinetuneParams:
    small = {"steps": 8, "batch": 4, "tile": 64, "validate_every": 4, "checkpoint_every": 4}
    trained = {"decoder_width": 8, "encoder_rate": 0.1}  # the embedded recipe keeps its encoder
    return default_params().finetune.model_copy(update={**small, **trained, **changes})


def test_perfect_logits_cost_nothing_and_ignored_pixels_never() -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 3, (2, 16, 16), generator=generator)
    perfect = 50.0 * torch.nn.functional.one_hot(target, 3).permute(0, 3, 1, 2)
    loss = SegmentationLoss(classes=2)
    assert float(loss(perfect, target)) == pytest.approx(0, abs=1e-4)

    wrong, partly = perfect.clone(), target.clone()
    wrong[:, :, :4] = -wrong[:, :, :4]
    partly[:, :4] = IGNORED
    assert float(loss(wrong, partly)) == pytest.approx(0, abs=1e-4)
    assert float(loss(wrong, target)) > 1
    assert float(loss(perfect, torch.full_like(target, IGNORED))) == 0


def test_loss_counts_a_missed_speck() -> None:
    target = torch.zeros(1, 100, 100, dtype=torch.long)
    target[0, :5, :6] = 1  # 0.3 % of the pixels
    background = torch.stack([torch.full((100, 100), 8.0), torch.zeros(100, 100)])[None]
    assert float(SegmentationLoss(classes=1)(background, target)) > 0.9


def test_file_rebuilds_the_network(tmp_path: Path) -> None:
    segmenter = SegmentationNetwork(SPEC, tile=64, classes=4, decoder_width=16).eval()
    save_segmenter(tmp_path / "s.safetensors", segmenter, SPEC)
    loaded, spec = load_segmenter(tmp_path / "s.safetensors")
    tiles = torch.randint(0, 256, (2, 1, 64, 64), generator=torch.Generator().manual_seed(0))
    assert spec == SPEC
    assert torch.equal(loaded(tiles), segmenter(tiles))


def test_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    with pytest.raises(UserError, match="is missing"):
        load_segmenter(path)
    path.write_bytes(b"not safetensors")
    with pytest.raises(UserError, match="is not a file of this project"):
        load_segmenter(path)


def test_encoder_weights_arrive() -> None:
    weights = create_encoder(SPEC).state_dict()
    segmenter = SegmentationNetwork(SPEC, tile=96, classes=2, decoder_width=16)
    segmenter.load_encoder_weights(weights)
    for name, weight in segmenter.encoder.state_dict().items():
        if name != "pos_embed":
            assert torch.equal(weight, weights[name]), name
    assert segmenter.encoder.pos_embed.shape == (1, 1 + 12 * 12, 128)


def encoder_weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return create_encoder(SPEC).state_dict()


def run(
    data: tuple[pd.DataFrame, DataParams, Path], params: FinetuneParams, checkpoint: Path
) -> Finetuned:
    frame, settings, folder = data
    weights = encoder_weights()
    return finetune(frame, folder, settings, params, SPEC, weights, Checkpoint(checkpoint))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_resume_is_bit_identical(
    data: tuple[pd.DataFrame, DataParams, Path], tmp_path: Path, optimizer: str
) -> None:
    params = settings(optimizer=optimizer)
    whole = run(data, params, tmp_path / "whole")
    frame, data_params, folder = data

    class Killed(Exception):
        pass

    def kill() -> None:
        raise Killed

    checkpoint = WatchedCheckpoint(tmp_path / "killed", kill)
    weights = encoder_weights()
    with pytest.raises(Killed):
        finetune(frame, folder, data_params, params, SPEC, weights, checkpoint)
    resumed = run(data, params, tmp_path / "killed")
    for name, weight in whole.segmenter.state_dict().items():
        assert torch.equal(weight, resumed.segmenter.state_dict()[name]), name
    columns = ["step", "train_loss", "val_miou", "learning_rate"]
    pd.testing.assert_frame_equal(whole.curves[columns], resumed.curves[columns])


def test_learns_and_keeps_the_best(
    data: tuple[pd.DataFrame, DataParams, Path], tmp_path: Path
) -> None:
    result = run(data, settings(steps=16), tmp_path)
    assert result.curves["train_loss"].iloc[-1] < result.curves["train_loss"].iloc[0]
    assert result.best["val_miou"] == result.curves["val_miou"].max()
    assert summarize(result)["steps"] == 16
    assert result.labelled_images == 4
    assert use_fused_attn()  # networks made later keep theirs


def test_the_offset_of_the_background_is_in_what_is_returned(
    data: tuple[pd.DataFrame, DataParams, Path], tmp_path: Path
) -> None:
    frame, data_params, folder = data
    params = settings(precision="32-true")
    result = run(data, params, tmp_path)
    assert result.best["background_offset"] != 0
    validation = frame[(frame["split"] == "val") & (frame["label_state"] == "labelled")]
    confusion = np.zeros((5, 5), np.int64)
    for tiles, masks in ValidationTiles(
        LabelledImages(validation, data_params, folder), params.tile
    ):
        with torch.no_grad():
            predicted = result.segmenter(tiles).argmax(dim=1)
        confusion += confusion_matrix(predicted.numpy(), masks.numpy(), classes=4)
    assert mean_iou(confusion) == pytest.approx(result.best["val_miou"], abs=1e-4)


def test_encoder_that_is_kept_stays_as_it_was(
    data: tuple[pd.DataFrame, DataParams, Path], tmp_path: Path
) -> None:
    kept = run(data, settings(encoder_rate=0.0), tmp_path / "kept").segmenter
    tuned = run(data, settings(), tmp_path / "tuned").segmenter
    for name, weight in encoder_weights().items():
        assert torch.equal(kept.encoder.state_dict()[name], weight), name
    assert all(weight.grad is None for weight in kept.encoder.parameters())
    assert not torch.equal(
        tuned.encoder.blocks[-1].mlp.fc1.weight, kept.encoder.blocks[-1].mlp.fc1.weight
    )
    assert not torch.equal(tuned.head[0].weight, kept.head[0].weight)


def test_without_an_object_to_find_none_is_better_than_a_false_one(
    data: tuple[pd.DataFrame, DataParams, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def counts(training: Finetuning, batch: TileBatch) -> np.ndarray:
        background = np.zeros((5, 4, len(OFFSETS) + 1), np.int64)
        background[0, 0, 0] = 9  # behind the background at every offset
        background[0, 0, -1] = training.step - 1  # ahead of it at every one
        return background

    monkeypatch.setattr(Finetuning, "_counts", counts)
    result = run(data, settings(steps=2, warmup_steps=0, validate_every=1), tmp_path)
    assert result.curves["val_miou"].isna().all()
    assert result.best["step"] == 1
    assert summarize(result)["val_miou"] is None


def test_split_without_labels_is_refused(
    data: tuple[pd.DataFrame, DataParams, Path], tmp_path: Path
) -> None:
    frame, data_params, folder = data
    unlabelled = frame.assign(
        label_state=np.where(frame["split"] == "val", "unlabelled", frame["label_state"])
    )
    with pytest.raises(UserError, match="No labelled image is in the split val"):
        run((unlabelled, data_params, folder), settings(), tmp_path)
