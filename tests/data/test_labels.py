"""Label files into masks: exact values, areas as drawn, and one sentence for whatever is refused."""

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dbp_mae.data.labels import LabelError, mask_from_labelme, mask_from_png, read_label

HEIGHT, WIDTH = 40, 60
CLASSES = ["wire", "ball", "epoxy"]


def png(array: np.ndarray, mode: str | None = None, **options: object) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(buffer, "PNG", **options)
    return buffer.getvalue()


def labelme(*shapes: dict, **changes: object) -> bytes:
    size = {"imageWidth": WIDTH, "imageHeight": HEIGHT}
    return json.dumps({"shapes": shapes, "flags": {"checked": True}} | size | changes).encode()


def shape(kind: str, points: object, label: str = "ball") -> dict:
    return {"label": label, "shape_type": kind, "points": points, "flags": {}, "group_id": None}


def full(value: int) -> np.ndarray:
    return np.full((HEIGHT, WIDTH), value, np.uint8)


def rasterise(*shapes: dict) -> np.ndarray:
    return mask_from_labelme(labelme(*shapes), CLASSES, HEIGHT, WIDTH)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_index_mask_is_read_as_it_is(seed: int) -> None:
    mask = np.random.default_rng(seed).choice([0, 1, 2, 3, 255], (HEIGHT, WIDTH)).astype(np.uint8)
    mask[0, 0] = 1
    assert np.array_equal(mask_from_png(png(mask), CLASSES, HEIGHT, WIDTH), mask)


def test_palette_gives_its_indices_not_its_colours() -> None:
    mask = full(0)
    mask[5:9, 5:9] = 2
    image = Image.fromarray(mask, "L").convert("P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    for bits in (2, 8):
        buffer = io.BytesIO()
        image.save(buffer, "PNG", bits=bits)
        read = mask_from_png(buffer.getvalue(), CLASSES, HEIGHT, WIDTH)
        assert np.array_equal(read, mask)


def test_polygon_covers_what_it_encloses() -> None:
    """The area lies between the polygon's and that of the polygon widened by one pixel."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 12))
        points = np.array([30, 20]) + rng.uniform(4, 15) * np.c_[np.cos(angles), np.sin(angles)]
        area = cv2.contourArea(points.astype(np.float32))
        perimeter = cv2.arcLength(points.astype(np.float32), closed=True)
        pixels = np.count_nonzero(rasterise(shape("polygon", points.tolist())))
        assert area - 2 <= pixels <= area + perimeter


def test_polygon_is_where_it_was_drawn() -> None:
    points = [[10.2, 10.4], [30.7, 9.8], [33.1, 28.6], [12.5, 30.2]]
    rows, columns = rasterise(shape("polygon", points)).nonzero()
    moments = cv2.moments(np.array(points, np.float32))
    centre = moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]
    assert (columns.mean() + 0.5, rows.mean() + 0.5) == pytest.approx(centre, abs=0.25)


def test_rectangle_is_its_polygon_whichever_corners_are_given() -> None:
    polygon = rasterise(shape("polygon", [[5, 6], [20, 6], [20, 15], [5, 15]]))
    for corners in ([[5, 6], [20, 15]], [[20, 6], [5, 15]], [[5, 6], [20, 6], [20, 15], [5, 15]]):
        assert np.array_equal(rasterise(shape("rectangle", corners)), polygon)


def test_circle_is_round_about_its_centre() -> None:
    mask = rasterise(shape("circle", [[30, 20], [30, 31]])) > 0
    distance = np.hypot(*(np.mgrid[:HEIGHT, :WIDTH] + 0.5 - np.array([20, 30])[:, None, None]))
    assert mask[distance < 10.5].all()
    assert not mask[distance > 12].any()


def test_later_shapes_lie_on_top_and_none_is_background() -> None:
    below = shape("rectangle", [[0, 0], [WIDTH, HEIGHT]], "wire")
    above = shape("rectangle", [[10, 10], [20, 20]], "epoxy")
    assert set(np.unique(rasterise(below, above))) == {1, 3}
    assert set(np.unique(rasterise(above, below))) == {1}
    assert not rasterise().any()


def test_shapes_may_reach_over_the_edge() -> None:
    over = rasterise(shape("polygon", [[-5, -5], [10, -5], [10, 10], [-5, 10]]))
    inside = rasterise(shape("polygon", [[0, 0], [10, 0], [10, 10], [0, 10]]))
    assert np.array_equal(over, inside)


def test_size_may_be_absent() -> None:
    data = labelme(shape("polygon", [[1, 1], [9, 1], [9, 9]]), imageWidth=None, imageHeight=None)
    assert mask_from_labelme(data, CLASSES, HEIGHT, WIDTH).any()


def test_labelme_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + labelme(shape("rectangle", [[1, 1], [9, 9]])))
    assert read_label(path, CLASSES, HEIGHT, WIDTH).any()


GOOD = png(full(1))
TRIANGLE = [[1, 1], [9, 1], [9, 9]]


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (png(full(255)), "binary_mask", "1 is 'wire'"),
        (png(np.where(np.eye(HEIGHT, WIDTH), 255, 0).astype(np.uint8)), "binary_mask", "0 and 255"),
        (png(full(4)), "unknown_class", "value 4"),
        (png(full(254)), "unknown_class", "value 254"),
        (png(full(1)[1:]), "wrong_size", "60 x 39"),
        (png(full(1).reshape(WIDTH, HEIGHT)), "wrong_size", "60 x 40 as its EXIF"),
        (png(full(1), "RGB"), "unsupported", "8-bit RGB"),
        (png(full(1), "RGBA"), "unsupported", "RGB with alpha"),
        (png(full(1), "LA"), "unsupported", "grey with alpha"),
        (png(full(1), "1"), "unsupported", "1-bit grey"),
        (png(full(1).astype(np.uint16)), "unsupported", "16-bit grey"),
        (b"\xff\xd8\xff\xe0 a photograph", "unsupported", "not a PNG"),
        (b"", "unsupported", "not a PNG"),
        (GOOD[:20], "unreadable", "damaged"),
        (GOOD[:50], "unreadable", "damaged"),
        (GOOD[:60] + b"\0\0\0\0" + GOOD[64:], "unreadable", "damaged"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value,
)
def test_refused_mask(data: bytes, kind: str, words: str) -> None:
    with pytest.raises(LabelError, match=words) as caught:
        mask_from_png(data, CLASSES, HEIGHT, WIDTH)
    assert caught.value.kind == kind


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (labelme(shape("polygon", TRIANGLE, "scratch")), "unknown_class", "'scratch'"),
        (labelme(shape("polygon", TRIANGLE, "Ball")), "unknown_class", "'Ball'"),
        (labelme(imageWidth=61), "wrong_size", "61 x 40"),
        (labelme(shape("polygon", [[1, 1], [1e9, 1], [9, 9]])), "wrong_size", "outside"),
        (labelme(shape("polygon", [[61, 1], [70, 1], [70, 9]])), "wrong_size", "outside"),
        (labelme(shape("polygon", [[1, -9], [9, -9], [9, -1]])), "wrong_size", "outside"),
        (labelme(shape("polygon", [[0.1, 0.1], [0.6, 0.1], [0.6, 0.9]])), "wrong_size", "shares"),
        (labelme(shape("line", [[1, 1], [9, 9]])), "unsupported", "'line'"),
        (labelme(shape("linestrip", TRIANGLE)), "unsupported", "'linestrip'"),
        (labelme(shape("point", [[1, 1]])), "unsupported", "'point'"),
        (labelme(shape("mask", [[1, 1], [9, 9]])), "unsupported", "'mask'"),
        (labelme(shape("polygon", [[1, 1], [9, 9]])), "unsupported", "of 2 points"),
        (labelme(shape("circle", [[1, 1]])), "unsupported", "of 1 points"),
        (labelme(shape("polygon", [])), "unsupported", "of 0 points"),
        (labelme(shape("polygon", [[1, 1], [9, "x"], [9, 9]])), "unreadable", "points"),
        (labelme(shape("polygon", [[1, 1, 1], [9, 1, 1], [9, 9, 1]])), "unreadable", "points"),
        (labelme(shape("polygon", [[1, float("nan")], [9, 1], [9, 9]])), "unreadable", "points"),
        (labelme({"points": TRIANGLE}), "unreadable", "label"),
        (b'{"annotations": []}', "unreadable", "shapes"),
        (b"[]", "unreadable", "LabelMe"),
        (b"", "unreadable", "LabelMe"),
        (b"<annotation></annotation>", "unreadable", "LabelMe"),
        (b"\x80\x81", "unreadable", "LabelMe"),
        (b"[" * 100_000, "unreadable", "LabelMe"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value,
)
def test_refused_labelme(data: bytes, kind: str, words: str) -> None:
    with pytest.raises(LabelError, match=words) as caught:
        mask_from_labelme(data, CLASSES, HEIGHT, WIDTH)
    assert caught.value.kind == kind


def test_missing_file_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="cannot be opened") as caught:
        read_label(tmp_path / "a.png", CLASSES, HEIGHT, WIDTH)
    assert caught.value.kind == "unreadable"
