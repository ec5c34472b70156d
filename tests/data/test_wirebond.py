import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from dbp_mae.data.rendering.optics import (
    Camera,
    draw_camera,
    draw_light,
    illuminate,
    photograph,
)
from dbp_mae.data.rendering.surface import Label, Surface
from dbp_mae.data.wirebond import render_dataset, render_device, render_view
from dbp_mae.errors import UserError
from dbp_mae.params import RenderParams

SIZE = 256
SMALL = RenderParams(devices=4, views=2, labelled_share=0.5, size=96, seed=0)
OBJECTS = [Label.WIRE, Label.BALL, Label.WEDGE, Label.EPOXY]


@pytest.fixture(scope="module")
def device() -> Surface:
    return render_device(np.random.default_rng(0), SIZE, epoxy=True)


@pytest.fixture(scope="module")
def views() -> tuple[np.ndarray, np.ndarray]:
    """Images and masks (N size size) of ten devices, every second one with epoxy."""
    rngs = np.random.default_rng(0).spawn(10)
    rendered = [
        render_view(render_device(rng, SIZE, epoxy=index % 2 == 0), rng, SIZE)
        for index, rng in enumerate(rngs)
    ]
    images, masks = zip(*rendered, strict=True)
    return np.stack(images), np.stack(masks)


def files(folder: Path) -> dict[str, bytes]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def count_objects(where: np.ndarray) -> int:
    return cv2.connectedComponents(where.astype(np.uint8))[0] - 1


def edge_of(where: np.ndarray) -> np.ndarray:
    """Return the pixels on both sides of the outline of `where`."""
    return cv2.morphologyEx(where.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3))) > 0


def test_same_seed_same_bytes_other_seed_other_images(tmp_path: Path) -> None:
    for name, params in (
        ("one", SMALL),
        ("same", SMALL),
        ("other", SMALL.model_copy(update={"seed": 1})),
    ):
        render_dataset(tmp_path / name, params)
    one, same, other = (files(tmp_path / name) for name in ("one", "same", "other"))
    assert one == same
    images = [name for name in one if name.startswith("images/")]
    assert len(images) == SMALL.devices * SMALL.views
    assert all(one[name] != other[name] for name in images)


def test_parts_csv_groups_the_views_and_only_labelled_devices_have_masks(tmp_path: Path) -> None:
    render_dataset(tmp_path, SMALL)
    with (tmp_path / "parts.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == sorted(
        path.name for path in (tmp_path / "images").iterdir()
    )
    assert all(row["image"].startswith(row["group"] + "_view_") for row in rows)
    labelled = {row["image"] for row in rows if row["state"] == "labelled"}
    unlabelled = {row["image"] for row in rows if row["state"] == "unlabelled"}
    assert labelled == {path.name for path in (tmp_path / "masks").iterdir()}
    assert labelled | unlabelled == {row["image"] for row in rows}
    groups = {row["group"] for row in rows if row["state"] == "labelled"}
    assert len(groups) == SMALL.labelled_share * SMALL.devices
    assert len(labelled) == len(groups) * SMALL.views


def test_half_of_the_labelled_devices_have_epoxy_in_every_view(tmp_path: Path) -> None:
    render_dataset(tmp_path, SMALL.model_copy(update={"labelled_share": 1.0}))
    bled: dict[str, set[bool]] = {}
    for path in (tmp_path / "masks").iterdir():
        bled.setdefault(path.name[:11], set()).add(Label.EPOXY in np.asarray(Image.open(path)))
    assert sorted(bled.values(), key=str) == [{False}, {False}, {True}, {True}]


def test_images_are_not_mixed_into_a_folder_that_has_some(tmp_path: Path) -> None:
    render_dataset(tmp_path, SMALL.model_copy(update={"devices": 1, "views": 1}))
    with pytest.raises(UserError, match="already holds images"):
        render_dataset(tmp_path, SMALL)


def test_masks_hold_all_classes_and_nothing_else(views: tuple[np.ndarray, np.ndarray]) -> None:
    images, masks = views
    assert images.shape == masks.shape == (10, SIZE, SIZE)
    assert images.dtype == masks.dtype == np.uint8
    for index, mask in enumerate(masks):
        bonded = {Label.BACKGROUND, Label.WIRE, Label.BALL, Label.WEDGE}
        assert set(np.unique(mask)) == bonded | ({Label.EPOXY} if index % 2 == 0 else set())


def test_every_wire_runs_from_a_ball_to_a_wedge(views: tuple[np.ndarray, np.ndarray]) -> None:
    for mask in views[1]:
        count, bonds = cv2.connectedComponents(np.isin(mask, OBJECTS[:3]).astype(np.uint8))
        assert 5 <= count - 1 <= 9
        for bond in range(1, count):
            assert set(mask[bonds == bond]) == set(OBJECTS[:3])


def test_views_share_the_device_but_not_the_pixels(device: Surface) -> None:
    (one, mask), (other, other_mask) = (
        render_view(device, np.random.default_rng(seed), SIZE) for seed in (1, 2)
    )
    assert np.mean(one != other) > 0.9
    assert np.any(mask != other_mask)
    for label in OBJECTS:
        assert (mask == label).sum() == pytest.approx((other_mask == label).sum(), rel=0.12)
    for label in (Label.BALL, Label.WEDGE):
        assert count_objects(mask == label) == count_objects(other_mask == label)


def aligned(array: np.ndarray, offset: int) -> np.ndarray:
    """Return a copy that lies `offset` bytes behind a multiple of 64."""
    memory = np.empty(array.nbytes + 128, np.uint8)
    start = -memory.ctypes.data % 64 + offset
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[:] = array
    return copy


def test_light_does_not_depend_on_where_the_maps_lie(device: Surface) -> None:
    light = draw_light(np.random.default_rng(0))
    for offset in (0, 4, 16, 32):
        moved = replace(device, slope_x=aligned(device.slope_x, offset))
        assert np.array_equal(illuminate(moved, light), illuminate(device, light))


def test_light_changes_the_image_but_not_the_mask(device: Surface) -> None:
    camera = draw_camera(np.random.default_rng(0))
    (one, mask), (other, other_mask) = (
        photograph(
            illuminate(device, draw_light(np.random.default_rng(seed))),
            device.label,
            camera,
            SIZE,
            np.random.default_rng(0),
        )
        for seed in (1, 2)
    )
    assert np.array_equal(mask, other_mask)
    assert np.mean(one != other) > 0.9


@pytest.mark.parametrize("size", [96, 256, 384])
def test_image_and_mask_are_warped_alike(size: int) -> None:
    """On a device of 96 pixels one pixel moves the centre by 0.1: so the offset is a mean of four."""
    camera = Camera(
        shift=np.array([4.3, -3.1]),
        rotation=0.06,
        zoom=1.02,
        blur=0.2,
        white=255,
        black=0,
        gamma=1,
        shot_noise=0,
        read_noise=0,
    )
    offsets = []
    for seed in range(4):
        device = render_device(np.random.default_rng(seed), size, epoxy=True)
        labelled = (device.label > 0).astype(np.float32)
        image, mask = photograph(labelled, device.label, camera, size, np.random.default_rng(0))
        bright, objects = image > 127, mask > 0
        assert np.array_equal(bright[~edge_of(objects)], objects[~edge_of(objects)])
        assert np.mean(bright == objects) > 0.99
        offsets.append(np.argwhere(bright).mean(axis=0) - np.argwhere(objects).mean(axis=0))
    assert np.abs(np.mean(offsets, axis=0)).max() < 0.15


def test_grey_levels_change_most_along_the_edges_of_the_masks(
    views: tuple[np.ndarray, np.ndarray],
) -> None:
    for image, mask in zip(*views, strict=True):
        steepness = cv2.magnitude(*(cv2.Sobel(image, cv2.CV_32F, *d) for d in ((1, 0), (0, 1))))
        edge = edge_of(mask == Label.WIRE) & ~np.isin(mask, [Label.BALL, Label.WEDGE])
        beside = [np.roll(edge, step, axis) for step in (-8, 8) for axis in (0, 1)]
        assert steepness[edge].mean() > 1.5 * steepness[mask == Label.BACKGROUND].mean()
        assert steepness[edge].mean() > max(steepness[where].mean() for where in beside)


def intervals(images: np.ndarray, target: np.ndarray) -> Iterator[float]:
    """Yield the IoU with `target` of every interval of grey levels, in steps of eight."""
    inside = np.histogram(images[target], bins=32, range=(0, 256))[0].cumsum()
    total = np.histogram(images, bins=32, range=(0, 256))[0].cumsum()
    inside, total = np.insert(inside, 0, 0), np.insert(total, 0, 0)
    for low in range(32):
        for high in range(low + 1, 33):
            hit, chosen = inside[high] - inside[low], total[high] - total[low]
            yield hit / (target.sum() + chosen - hit)


def test_no_threshold_on_the_grey_level_segments_the_images(
    views: tuple[np.ndarray, np.ndarray],
) -> None:
    """Not even the best interval of grey levels for each class, chosen on the answers."""
    images, masks = views
    best = [max(intervals(images, masks == label)) for label in OBJECTS]
    assert np.mean(best) < 0.2
    each = [
        [max(intervals(image, mask == label)) for label in OBJECTS if label in mask]
        for image, mask in zip(images, masks, strict=True)
    ]
    assert np.mean([np.mean(ious) for ious in each]) < 0.3


def test_the_most_frequent_class_of_each_grey_level_is_no_segmenter(
    views: tuple[np.ndarray, np.ndarray],
) -> None:
    images, masks = views
    counts = np.zeros((256, 5), int)
    np.add.at(counts, (images.ravel(), masks.ravel()), 1)
    predicted = counts.argmax(axis=1)[images]
    ious = [
        np.sum((predicted == label) & (masks == label))
        / np.sum((predicted == label) | (masks == label))
        for label in OBJECTS
    ]
    assert np.mean(ious) < 0.1


@pytest.mark.parametrize("label", OBJECTS)
def test_grey_levels_of_each_class_are_those_of_the_background(
    views: tuple[np.ndarray, np.ndarray], label: Label
) -> None:
    images, masks = views
    shares = [
        np.histogram(images[masks == of], bins=32, range=(0, 256))[0] / np.sum(masks == of)
        for of in (Label.BACKGROUND, label)
    ]
    assert np.minimum(*shares).sum() > 0.5
