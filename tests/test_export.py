"""The ONNX file: equal to the network, complete in itself, refused where it is not."""

from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from default_params import default_params

from dbp_mae.encoder import EncoderSpec
from dbp_mae.errors import UserError
from dbp_mae.export import (
    Parity,
    TileClassifier,
    check_parity,
    choose_min_score,
    export,
    make_card,
    making_sha256,
)
from dbp_mae.inspection.images import encode_png
from dbp_mae.inspection.model_card import ModelCard
from dbp_mae.inspection.segmenter import Segmenter
from dbp_mae.params import Params
from dbp_mae.segmentation.network import SegmentationNetwork

TILE = 64
SPEC = EncoderSpec("nano", 8, 32, 1, (0.4,), (0.2,))


@pytest.fixture(scope="module")
def params() -> Params:
    defaults = default_params()
    return defaults.model_copy(
        update={"finetune": defaults.finetune.model_copy(update={"tile": TILE})}
    )


@pytest.fixture(scope="module")
def segmenter() -> SegmentationNetwork:
    torch.manual_seed(0)
    segmenter = SegmentationNetwork(SPEC, TILE, classes=4, decoder_width=16)
    with torch.no_grad():  # away from the initial symmetry, and with used batch statistics
        for weight in segmenter.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
        segmenter.train()(torch.randint(0, 256, (4, 1, TILE, TILE)))
    return segmenter.eval()


@pytest.fixture(scope="module")
def card(
    params: Params, segmenter: SegmentationNetwork, tmp_path_factory: pytest.TempPathFactory
) -> ModelCard:
    manifest = tmp_path_factory.mktemp("data") / "validated.parquet"
    statistics = {"mean": 0.4, "std": 0.2, "sharpness": 100.0, "saturated": 0.0}
    frame = pd.DataFrame([{"split": "train", **statistics}, {"split": "test", **statistics}])
    frame.to_parquet(manifest)
    return make_card(params, frame, manifest, segmenter, None, 0.7, [])


@pytest.fixture(scope="module")
def tiles() -> np.ndarray:
    rng = np.random.default_rng(0)
    smooth = rng.integers(0, 256, (10, 8, 8, 1), dtype=np.uint8)
    return smooth.repeat(8, axis=1).repeat(8, axis=2)


@pytest.fixture(scope="module")
def exported(
    segmenter: SegmentationNetwork,
    card: ModelCard,
    tiles: np.ndarray,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    path = tmp_path_factory.mktemp("models") / "segmenter.onnx"
    parity = export(segmenter, card, tiles, path)
    assert parity.tiles == 10
    assert parity.max_difference < 1e-4
    assert parity.same_argmax_share >= 0.999
    assert parity.bytes == path.stat().st_size
    assert [file.name for file in path.parent.iterdir()] == ["segmenter.onnx"], "one file"
    return path


def test_card_travels_in_the_file(exported: Path, card: ModelCard) -> None:
    served = Segmenter.load(exported)
    assert served.card == card
    assert served.card.training_images == 1
    assert [item.defect for item in served.card.classes] == [False, False, False, True]


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_any_batch_gives_the_probabilities_of_the_network(
    batch: int, exported: Path, segmenter: SegmentationNetwork, tiles: np.ndarray
) -> None:
    served = Segmenter.load(exported)
    (found,) = served._session.run(["probabilities"], {"tiles": tiles[:batch]})
    with torch.no_grad():
        expected = TileClassifier(segmenter)(torch.from_numpy(tiles[:batch])).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


def test_file_of_another_network_is_refused(
    exported: Path,
    card: ModelCard,
    tiles: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(1)
    other = SegmentationNetwork(SPEC, TILE, classes=4, decoder_width=16).eval()
    assert check_parity(TileClassifier(other), tiles, exported).max_difference > 1e-4

    # The exporter writes the file of one network, the check compares with another.
    monkeypatch.setattr(
        "dbp_mae.export._write_onnx",
        lambda classifier, tiles, card, path: path.write_bytes(exported.read_bytes()),
    )
    path = tmp_path / "segmenter.onnx"
    with pytest.raises(UserError, match="was not written"):
        export(other, card, tiles, path)
    assert not list(tmp_path.iterdir())


def test_a_tile_that_comes_again_counts_once(
    exported: Path, segmenter: SegmentationNetwork, tiles: np.ndarray
) -> None:
    again = np.resize(tiles[:3], tiles.shape)
    assert check_parity(TileClassifier(segmenter), again, exported).tiles == 3


@pytest.mark.parametrize(("difference", "same"), [(2e-4, 1.0), (0.0, 0.998)])
def test_either_measure_of_parity_refuses_alone(
    difference: float,
    same: float,
    segmenter: SegmentationNetwork,
    card: ModelCard,
    tiles: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parity = Parity(10, difference, same, bytes=1, opset=20)
    monkeypatch.setattr("dbp_mae.export._write_onnx", lambda *arguments: None)
    monkeypatch.setattr("dbp_mae.export.check_parity", lambda *arguments: parity)
    with pytest.raises(UserError, match="was not written"):
        export(segmenter, card, tiles, tmp_path / "segmenter.onnx")


def strict_model(tiny_model: Path, path: Path) -> ModelCard:
    """Write the tiny model with a threshold that no object of `labelled_files` reaches."""
    card = Segmenter.load(tiny_model).card.model_copy(update={"min_score": 0.9})
    model = onnx.load(tiny_model)
    onnx.helper.set_model_props(model, card.to_metadata())
    onnx.save(model, path)
    return card


def labelled_files(folder: Path) -> list[tuple[Path, Path]]:
    """Write an image with a defect that scores 0.82, and a good one with a false report of 0.53."""
    files = []
    for name, grey, label in (("defective", 185, 2), ("good", 179, 0)):
        image, mask = np.full((80, 80), 20, np.uint8), np.zeros((80, 80), np.uint8)
        image[8:28, 8:28], mask[8:28, 8:28] = grey, label
        pair = folder / f"{name}.png", folder / f"{name}_mask.png"
        for file, pixels in zip(pair, (image, mask), strict=True):
            file.write_bytes(encode_png(pixels))
        files.append(pair)
    return files


def test_the_chosen_threshold_ships_in_the_same_graph(tiny_model: Path, tmp_path: Path) -> None:
    """All is right from 0.55 to 0.8; averaged over two neighbours on either side, from 0.65 to 0.7."""
    path = tmp_path / "segmenter.onnx"
    card = strict_model(tiny_model, path)
    assert choose_min_score(path, labelled_files(tmp_path), match_iou=0.1) == 0.65
    assert Segmenter.load(path).card == card.model_copy(update={"min_score": 0.65})
    assert onnx.load(path).graph == onnx.load(tiny_model).graph


def test_without_a_found_defect_the_file_stays_as_it_was(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "segmenter.onnx"
    strict_model(tiny_model, path)
    before = path.read_bytes()
    _, good = labelled_files(tmp_path)
    assert choose_min_score(path, [good], match_iou=0.1) is None
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("block", "changes", "same"),
    [
        ("evaluate", {"overlays": 1}, True),
        ("scratch", {"encoder_rate": 0.5}, True),
        ("evaluate", {"match_iou": 0.7}, False),
        ("pretrain", {"steps": 7}, False),
    ],
)
def test_the_card_tells_the_values_that_made_the_model(
    block: str, changes: dict[str, float], same: bool, params: Params
) -> None:
    changed = getattr(params, block).model_copy(update=changes)
    other = params.model_copy(update={block: changed})
    assert (making_sha256(other) == making_sha256(params)) == same
