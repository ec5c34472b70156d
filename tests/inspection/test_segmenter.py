from pathlib import Path

import numpy as np
import onnx
import pytest

from dbp_mae.errors import UserError
from dbp_mae.files import sha256_of
from dbp_mae.inspection.model_card import ModelCard
from dbp_mae.inspection.segmenter import GivenUp, Segmenter


@pytest.fixture(scope="module")
def segmenter(tiny_model: Path) -> Segmenter:
    return Segmenter.load(tiny_model)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (9, 200), (40, 30), (301, 170)])
def test_the_mask_is_that_of_the_brightness_at_any_size(
    segmenter: Segmenter, height: int, width: int
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 1), dtype=np.uint8)
    expected = np.digitize(image[..., 0] / 255, [0.35, 0.7])
    found = segmenter.segment(image)
    assert found.mask.dtype == np.uint8
    assert np.array_equal(found.mask, expected)
    probabilities = segmenter.probabilities(image, given_up=lambda: False)
    assert probabilities.shape == (3, height, width)
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, rtol=1e-5)
    assert np.array_equal(found.mask, probabilities.argmax(axis=0))


def test_tiles_overlap_and_blend_as_the_card_says(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three tiles of 64 that overlap by 16, of which each is taken for another class."""
    segmenter = Segmenter.load(tiny_model)
    planes = np.broadcast_to(np.eye(3, dtype=np.float32)[..., None, None], (3, 3, 64, 64))
    monkeypatch.setattr(segmenter, "_predict", lambda tiles, given_up: iter(planes))
    found = segmenter.probabilities(np.zeros((64, 160, 1), np.uint8), given_up=lambda: False)
    seams = [47, 64, 95, 112]  # the last pixel of one tile alone, and the first of the next alone
    expected = [
        np.interp(np.arange(160), seams, share)
        for share in ([1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1])
    ]
    np.testing.assert_allclose(found[:, 32], expected, atol=1e-6)


def test_a_segmentation_given_up_leaves_the_rest_of_its_tiles(segmenter: Segmenter) -> None:
    image = np.zeros((500, 500, 1), np.uint8)
    asked = []

    def given_up() -> bool:
        asked.append(True)
        return len(asked) == 2

    with pytest.raises(GivenUp):
        segmenter.segment(image, given_up)
    assert len(asked) == 2
    asked.clear()
    segmenter.segment(image, lambda: bool(asked.append(True)))
    assert len(asked) > 2


def test_objects_are_those_of_the_mask(segmenter: Segmenter) -> None:
    image = np.zeros((150, 150, 1), np.uint8)
    image[20:100, 30:36] = 128
    image[110:120, 50:70] = 250
    found = segmenter.segment(image)
    assert [(item.class_name, item.box, item.area) for item in found.objects] == [
        ("wire", (30, 20, 6, 80), 480),
        ("epoxy", (50, 110, 20, 10), 200),
    ]
    assert all(item.score > 0.9 for item in found.objects)


def test_a_segmenter_says_what_it_is(
    segmenter: Segmenter, tiny_model: Path, tiny_card: ModelCard
) -> None:
    assert segmenter.card == tiny_card
    assert segmenter.sha256 == sha256_of(tiny_model)
    assert segmenter.provider in ("CPUExecutionProvider", "CUDAExecutionProvider")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "segmenter.onnx", tmp_path):
        with pytest.raises(UserError, match=f"{path} cannot be read"):
            Segmenter.load(path)


def test_damaged_and_foreign_files_are_refused(
    tiny_model: Path, tiny_card: ModelCard, tmp_path: Path
) -> None:
    path = tmp_path / "segmenter.onnx"
    whole = tiny_model.read_bytes()
    for data in (b"", b"hello", whole[: len(whole) // 2]):
        path.write_bytes(data)
        with pytest.raises(UserError, match=str(path)):
            Segmenter.load(path)

    foreign = onnx.load(tiny_model)
    del foreign.metadata_props[:]
    onnx.save(foreign, path)
    with pytest.raises(UserError, match="no model card"):
        Segmenter.load(path)

    for change, sentence in (
        ({"tile": 32}, "does not take the tiles"),
        ({"classes": tiny_card.classes[:1]}, r"gives \(2, 3, 64, 64\)"),
    ):
        card = tiny_card.model_copy(update=change)
        onnx.helper.set_model_props(foreign, card.to_metadata())
        onnx.save(foreign, path)
        with pytest.raises(UserError, match=sentence):
            Segmenter.load(path)
