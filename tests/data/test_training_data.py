"""Crops and tiles for training: pure functions of seed and step, aligned, fair to rare classes."""

import shutil
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from default_params import default_params
from torch.utils.data import DataLoader

from dbp_mae.data.augmentation import augment, training_augmentation
from dbp_mae.data.crops import CropBatches, mirrored, random_crop, resized_crop
from dbp_mae.data.images import DecodedImages, DecodedMasks, pooled_statistics
from dbp_mae.data.labels import IGNORED
from dbp_mae.data.tiles import (
    LabelledImages,
    TileBatches,
    ValidationTiles,
    near_pixel,
    pad_mask,
    sample_tiles,
)
from dbp_mae.errors import UserError
from dbp_mae.inspection.images import encode_png
from dbp_mae.params import DataParams

SIDE = 90


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, DataParams, Path]:
    """Five images whose grey tells the class (0, 50, 100): one pixel of class 2 in the first alone."""
    folder = tmp_path_factory.mktemp("labelled")
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    rows = []
    for number in range(5):
        mask = np.zeros((SIDE, SIDE + number), np.uint8)
        mask[10:20, 10:60] = 1
        if number == 0:
            mask[85, 85] = 2
        name = f"{number}.png"
        (folder / "images" / name).write_bytes(encode_png(mask * 50 + number))
        (folder / "masks" / name).write_bytes(encode_png(mask))
        rows.append(
            {
                "path": f"images/{name}",
                "mask_path": f"masks/{name}",
                "label_state": "labelled",
                "pixels": np.bincount(mask.ravel(), minlength=3).tolist(),
                "split": "val",
            }
        )
    params = default_params().data
    return pd.DataFrame(rows), params.model_copy(update={"source": folder}), folder


def test_batches_depend_on_seed_and_step_alone(
    labelled: tuple[pd.DataFrame, DataParams, Path],
) -> None:
    frame, data, _ = labelled
    params = default_params().pretrain.model_copy(update={"batch": 8, "crop": 32})
    first, second = (CropBatches(DecodedImages(frame, data), params, seed=3) for _ in range(2))
    first[0], first[1]
    for one, other in zip(first[7], second[7], strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(first[7][0], first[8][0])
    assert not torch.equal(first[7][0], CropBatches(first.images, params, seed=4)[7][0])


@pytest.mark.parametrize("scale", [None, (0.3, 1.0)])
def test_processes_load_their_parts_of_the_batch_and_no_others(
    labelled: tuple[pd.DataFrame, DataParams, Path], scale: tuple[float, float] | None
) -> None:
    frame, data, _ = labelled
    sizes = {"batch": 12, "crop": 32, "crops_per_image": 3, "scale": scale}
    params = default_params().pretrain.model_copy(update=sizes)
    whole = CropBatches(DecodedImages(frame, data), params, seed=3)[1]
    parts = []
    for part in range(6):  # of two crops, of one image or of two
        images = DecodedImages(frame, data)
        parts.append(CropBatches(images, params, seed=3, part=part, parts=6)[1])
        assert len(images.kept) <= 2
    for joint, shared in zip(whole, zip(*parts, strict=True), strict=True):
        assert torch.equal(joint, torch.cat(shared))


def test_an_image_is_decoded_once_for_all_its_crops(
    labelled: tuple[pd.DataFrame, DataParams, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    frame, data, _ = labelled
    decoded: list[int] = []
    decode = DecodedImages.decode

    def counted(images: DecodedImages, index: int) -> np.ndarray:
        decoded.append(index)
        return decode(images, index)

    monkeypatch.setattr(DecodedImages, "decode", counted)
    sizes = {"batch": 8, "crop": 32, "crops_per_image": 2}
    params = default_params().pretrain.model_copy(update=sizes)
    pixels, _ = CropBatches(DecodedImages(frame, data, budget=0), params, seed=3)[0]
    assert len(pixels) == 8
    assert len(decoded) == 4


def test_every_image_is_visited_once_an_epoch(
    labelled: tuple[pd.DataFrame, DataParams, Path],
) -> None:
    frame, data, _ = labelled
    params = default_params().pretrain.model_copy(update={"batch": 4, "crops_per_image": 4})
    batches = CropBatches(DecodedImages(frame, data), params, seed=0)
    visits = [batches._image_indices(step)[0] for step in range(10)]
    assert sorted(visits[:5]) == sorted(visits[5:]) == list(range(5))
    assert visits[:5] != visits[5:]


def test_crop_is_at_native_scale_and_pads_small_images() -> None:
    rng = np.random.default_rng(0)
    image = np.arange(40 * 50, dtype=np.int32).reshape(40, 50, 1)
    crop = random_crop(image, 16, rng.random(2))[:, :, 0]
    assert set(np.diff(crop, axis=1).ravel()) == {1}
    assert set(np.diff(crop, axis=0).ravel()) == {50}
    assert random_crop(image, 64, rng.random(2)).shape == (64, 64, 1)


@pytest.mark.parametrize("scale", [(0.2, 0.3), (1.0, 1.0), (0.001, 0.01)])
def test_resized_crop_shows_a_share_of_the_image(scale: tuple[float, float]) -> None:
    """The red and green of a pixel tell where it was, so a crop tells what it shows."""
    height, width = 240, 200
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    image = np.stack([rows, columns, rows], axis=2)
    rng = np.random.default_rng(0)
    areas, ratios = [], []
    for _ in range(300):
        crop = resized_crop(image, 32, scale, *rng.random((2, 2))).astype(float)
        assert crop.shape == (32, 32, 3)
        spans = [np.ptp(crop[..., channel]) * 32 / 31 for channel in (0, 1)]
        areas.append(spans[0] * spans[1] / (height * width))
        ratios.append(spans[1] / max(spans[0], 1))
    slack = 1.3 if scale[0] < 0.1 else 1.1  # a crop of few pixels is measured roughly
    assert max(areas) < slack * scale[1]
    if scale[1] < 1:
        assert np.mean(areas) == pytest.approx(np.mean(scale), rel=0.15)
        assert np.median(ratios) == pytest.approx(1, abs=0.1)
    assert resized_crop(image[..., :1], 32, scale, *rng.random((2, 2))).shape == (32, 32, 1)


@pytest.mark.parametrize(("upright", "poses"), [(True, 2), (False, 4)])
def test_upright_images_are_mirrored_left_and_right_alone(upright: bool, poses: int) -> None:
    rng = np.random.default_rng(0)
    crop = np.arange(4).reshape(2, 2, 1)
    seen = {tuple(mirrored(crop, upright, rng.random(2)).ravel()) for _ in range(50)}
    assert len(seen) == poses
    tile, augmentation = crop.astype(np.uint8).repeat(32, 0).repeat(32, 1), None
    augmentation = training_augmentation(upright)
    masks = [augment(augmentation, tile, tile[..., 0], seed)[1] for seed in range(60)]
    assert len({tuple(mask[::32, ::32].ravel()) for mask in masks}) == 2 * poses // (1 + upright)


def test_batches_are_cut_as_the_parameters_say(
    labelled: tuple[pd.DataFrame, DataParams, Path],
) -> None:
    frame, data, _ = labelled
    params = default_params().pretrain.model_copy(update={"batch": 8, "crop": 32})
    whole = params.model_copy(update={"scale": (1.0, 1.0)})
    pixels, _ = CropBatches(DecodedImages(frame, data), whole, seed=3)[0]
    assert pixels.shape == (8, 1, 32, 32)
    assert (pixels > 45).flatten(1).any(1).all(), "the bar is in every whole image"


@pytest.mark.parametrize(
    ("budget", "kept"), [(10 * SIDE * SIDE, {0, 1, 2, 3, 4}), (SIDE * SIDE, {0}), (0, set())]
)
def test_what_is_decoded_before_is_shared_and_no_more_is_kept(
    labelled: tuple[pd.DataFrame, DataParams, Path], budget: int, kept: set[int]
) -> None:
    frame, data, _ = labelled
    images, lazy = DecodedImages(frame, data, budget), DecodedImages(frame, data)
    images.fill(threads=2)
    assert set(images.kept) == kept
    for index in range(len(images)):
        np.testing.assert_array_equal(images[index], lazy[index])
    assert set(images.kept) == kept


def test_what_was_decoded_by_use_is_not_decoded_again_beforehand(
    labelled: tuple[pd.DataFrame, DataParams, Path],
) -> None:
    frame, data, _ = labelled
    images = DecodedImages(frame, data)
    used = images[1]
    images.fill(threads=2)
    assert images[1] is used
    total = sum(array.nbytes for array in images.kept.values())
    tight = DecodedImages(frame, data, total)
    assert tight[1].shape == used.shape
    tight.fill(threads=2)
    assert set(tight.kept) == set(range(len(frame)))


def test_images_beyond_the_budget_are_read_again(
    labelled: tuple[pd.DataFrame, DataParams, Path],
) -> None:
    frame, data, _ = labelled
    images = DecodedImages(frame, data, budget=SIDE * SIDE)
    for index in (0, 1, 0, 1):
        assert images[index].shape == (SIDE, SIDE + index, 1)
    assert list(images.kept) == [0]


def test_masks_are_read_once(labelled: tuple[pd.DataFrame, DataParams, Path]) -> None:
    frame, _, folder = labelled
    masks = DecodedMasks(frame, folder)
    assert masks[1] is masks[1]
    assert np.bincount(masks[1].ravel(), minlength=3).tolist() == frame["pixels"][1]


def test_pooled_statistics_are_those_of_all_pixels() -> None:
    rng = np.random.default_rng(0)
    images = [rng.random((4, 5, 3)), rng.random((20, 3, 3)) * 0.2]
    frame = pd.DataFrame(
        [
            {
                "width": image.shape[1],
                "height": image.shape[0],
                "channel_mean": image.mean((0, 1)),
                "channel_std": image.std((0, 1)),
            }
            for image in images
        ]
    )
    pixels = np.concatenate([image.reshape(-1, 3) for image in images])
    mean, std = pooled_statistics(frame)
    np.testing.assert_allclose(mean, pixels.mean(0))
    np.testing.assert_allclose(std, pixels.std(0))


@pytest.mark.parametrize("level", [0.0, 0.1, 0.3])
def test_constant_channel_has_a_deviation_to_divide_by(level: float) -> None:
    row = {"width": 7, "height": 3, "channel_mean": [level], "channel_std": [0.0]}
    mean, std = pooled_statistics(pd.DataFrame([row] * 3))
    assert mean == pytest.approx((level,))
    assert std == pytest.approx((1 / 255,))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("content", [None, b"", b"\x89PNG\r\n\x1a\n, and no more"])
@pytest.mark.parametrize("kind", ["images", "masks"])
def test_vanished_or_broken_file_ends_training_with_one_sentence(
    labelled: tuple[pd.DataFrame, DataParams, Path],
    tmp_path: Path,
    kind: str,
    content: bytes | None,
    workers: int,
) -> None:
    frame, data, folder = labelled
    copy = shutil.copytree(folder, tmp_path / "copy")
    for file in (copy / kind).iterdir():
        file.unlink() if content is None else file.write_bytes(content)
    params = default_params().finetune
    images = LabelledImages(frame, data.model_copy(update={"source": copy}), copy)
    loader = DataLoader(TileBatches(images, params), batch_size=None, num_workers=workers)
    with pytest.raises(UserError, match=r"^\S+copy/" + kind + r"/\d.png: .+ingest") as caught:
        next(iter(loader))
    assert "\n" not in str(caught.value)


def test_augmentation_keeps_image_and_mask_together() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[8:30, 20:40] = 1
    tile = (mask * 200)[:, :, None]
    augmentation = training_augmentation(upright=False)
    for seed in range(20):
        image, moved = augment(augmentation, tile, mask, seed)
        inside, outside = image[:, :, 0][moved == 1], image[:, :, 0][moved == 0]
        assert image.dtype == np.uint8
        assert np.median(inside) > np.median(outside) + 60
        again = augment(augmentation, tile, mask, seed)
        np.testing.assert_array_equal(image, again[0])
        np.testing.assert_array_equal(moved, again[1])
    assert not np.array_equal(image, augment(augmentation, tile, mask, 0)[0])


@pytest.mark.parametrize("upright", [False, True])
def test_each_augmentation_acts_whatever_the_others_do(upright: bool) -> None:
    augmentation = training_augmentation(upright)
    names = [type(transform).__name__ for transform in augmentation.transforms]
    acted = dict.fromkeys(names, False)
    for transform, name in zip(augmentation.transforms, names, strict=True):
        own = transform.apply

        def noting(*arguments: Any, own: Any = own, name: str = name, **others: Any) -> Any:
            acted[name] = True
            return own(*arguments, **others)

        transform.apply = noting
    seen, tile = [], np.zeros((16, 16, 1), np.uint8)
    for seed in range(2000):
        acted |= dict.fromkeys(names, False)
        augment(augmentation, tile, tile[..., 0], seed)
        seen.append(list(acted.values()))
    shares = np.mean(seen, axis=0)
    for one, other in combinations(range(len(names)), 2):
        both = np.mean([row[one] and row[other] for row in seen])
        assert both == pytest.approx(shares[one] * shares[other], abs=0.03), (
            names[one],
            names[other],
        )


def test_rare_class_is_seen_as_often_as_the_common_one(
    labelled: tuple[pd.DataFrame, DataParams, Path],
) -> None:
    frame, data, folder = labelled
    params = default_params().finetune.model_copy(
        update={"tile": 32, "batch": 16, "foreground_share": 1.0}
    )
    batches = TileBatches(LabelledImages(frame, data, folder), params)
    masks = torch.cat([batches[step][1] for step in range(8)])
    share = [(masks == index).flatten(1).any(1).float().mean().item() for index in (1, 2)]
    assert share[1] > 0.25, "one pixel in one of five images"
    assert share[0] > 0.25
    assert torch.equal(batches[3][0], batches[3][0])


def test_near_pixel_holds_a_wanted_pixel() -> None:
    rng = np.random.default_rng(0)
    wanted = np.zeros((50, 70), bool)
    for corner in [(0, 0), (49, 69), (25, 30)]:
        wanted[:] = False
        wanted[corner] = True
        for _ in range(50):
            top, left = near_pixel(wanted, 32, rng)
            assert wanted[top : top + 32, left : left + 32].any()
            assert 0 <= top <= 18
            assert 0 <= left <= 38


def test_validation_tiles_cover_and_padding_is_ignored(
    labelled: tuple[pd.DataFrame, DataParams, Path],
) -> None:
    frame, data, folder = labelled
    batches = ValidationTiles(LabelledImages(frame, data, folder), 128)
    assert len(batches) == 5
    tiles, masks = batches[0]
    assert tiles.shape == (1, 1, 128, 128)
    assert int((masks != IGNORED).sum()) == SIDE * SIDE
    assert pad_mask(np.zeros((5, 200), np.uint8), 128).shape == (128, 200)


@pytest.mark.parametrize("size", [32, 40, 70])
def test_validation_counts_every_pixel_once(
    size: int, labelled: tuple[pd.DataFrame, DataParams, Path]
) -> None:
    frame, data, folder = labelled
    images = LabelledImages(frame, data, folder)
    for (_, mask), (_, masks) in zip(images, ValidationTiles(images, size), strict=True):
        counts = np.bincount(masks.numpy().ravel(), minlength=256)
        np.testing.assert_array_equal(
            counts[:IGNORED], np.bincount(mask.ravel(), minlength=256)[:IGNORED]
        )


def test_sample_tiles_are_real_and_come_again_where_images_are_few(
    labelled: tuple[pd.DataFrame, DataParams, Path],
) -> None:
    frame, data, _ = labelled
    tiles = sample_tiles(frame, data, 32)
    assert tiles.shape == (10, 32, 32, 1)
    assert tiles.dtype == np.uint8
    assert np.array_equal(tiles[5:], tiles[:5])
    assert len({tile.tobytes() for tile in tiles}) == 5
