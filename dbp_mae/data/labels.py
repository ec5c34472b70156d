"""Label files into index masks: 0 background, class i is i, 255 ignored."""

import io
import json
import struct
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image
from pydantic import BaseModel, FiniteFloat, ValidationError

IGNORED = 255

LabelErrorKind = Literal[
    "unreadable", "binary_mask", "unknown_class", "wrong_size", "unsupported", "contradiction"
]

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_HEADER = struct.Struct(">16x2I2B")  # width, height, bit depth, colour type
_PNG_COLOUR = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}
_SUBPIXEL_BITS = 4
_CIRCLE_CORNERS = 180


class LabelError(Exception):
    """A label that is refused; the message is one sentence that does not repeat the file's name."""

    def __init__(self, kind: LabelErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind: LabelErrorKind = kind


class _Shape(BaseModel):
    label: str
    points: list[tuple[FiniteFloat, FiniteFloat]]
    shape_type: str = "polygon"


class _LabelMe(BaseModel):
    shapes: list[_Shape]
    imageWidth: int | None = None
    imageHeight: int | None = None


def read_label(
    path: Path, classes: list[str], height: int, width: int, clean: bool = False
) -> np.ndarray:
    """Read a label file as a mask.

    Args:
        path: an index PNG, or a LabelMe JSON file.
        classes: their names; class i of the mask (counted from 1) is the i-th.
        height: of the image in pixels, like `width`.
        clean: the image is known to show no object, so a mask may hold 0 and 255 alone.

    Returns:
        uint8, H W.

    Raises:
        LabelError: the file is refused.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LabelError("unreadable", f"cannot be opened ({error.strerror})") from None
    if path.suffix.lower() == ".json":
        return mask_from_labelme(data, classes, height, width)
    return mask_from_png(data, classes, height, width, clean)


def mask_from_png(
    data: bytes, classes: list[str], height: int, width: int, clean: bool = False
) -> np.ndarray:
    """Decode an index PNG (8-bit grey, or palette) and check its values; see `read_label`."""
    if not data.startswith(_PNG_SIGNATURE):
        raise LabelError(
            "unsupported", "is not a PNG: save the mask as an 8-bit grey PNG of class indices"
        )
    try:
        columns, rows, depth, colour = _PNG_HEADER.unpack_from(data)
    except struct.error:
        raise LabelError("unreadable", "is damaged or incomplete: save the mask again") from None
    if _PNG_COLOUR.get(colour) != "palette" and (colour, depth) != (0, 8):
        raise LabelError(
            "unsupported",
            f"is {depth}-bit {_PNG_COLOUR.get(colour, 'PNG of an unknown kind')}: save the mask as "
            "an 8-bit grey PNG of class indices",
        )
    _check_size(columns, rows, width, height)
    try:
        Image.open(io.BytesIO(data), formats=["PNG"]).verify()  # checksums, which decoding skips
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            mask = np.array(image, dtype=np.uint8)
    except Exception:  # damaged files make Pillow raise almost anything
        raise LabelError("unreadable", "is damaged or incomplete: save the mask again") from None
    _check_values(mask, classes, clean)
    return mask


def mask_from_labelme(data: bytes, classes: list[str], height: int, width: int) -> np.ndarray:
    """Rasterise LabelMe's polygons, rectangles and circles in their order; see `read_label`.

    As in LabelMe's own export, a pixel that a shape's outline touches belongs to the shape.
    """
    try:
        labelme = _LabelMe.model_validate(json.loads(data))
    except (ValueError, RecursionError) as error:
        where = _first_location(error) if isinstance(error, ValidationError) else "the JSON"
        raise LabelError(
            "unreadable",
            f"is not LabelMe's JSON ({where} is missing or malformed): export it again",
        ) from None
    _check_size(labelme.imageWidth or width, labelme.imageHeight or height, width, height)
    mask = np.zeros((height, width), np.uint8)
    for shape in labelme.shapes:
        if shape.label not in classes:
            raise LabelError(
                "unknown_class",
                f"labels '{shape.label}', which is not among data.classes {classes}: "
                "correct the label, or add the class",
            )
        corners = _outline(shape)
        _check_extent(corners, width, height)
        # LabelMe's pixel 0 reaches from 0 to 1; OpenCV's is centred on 0.
        fixed_point = np.rint((corners - 0.5) * 2**_SUBPIXEL_BITS).astype(np.int32)
        cv2.fillPoly(mask, [fixed_point], classes.index(shape.label) + 1, shift=_SUBPIXEL_BITS)
    return mask


def _check_size(columns: int, rows: int, width: int, height: int) -> None:
    if (columns, rows) != (width, height):
        turned = " as its EXIF orientation turns it, if any" * ((rows, columns) == (width, height))
        raise LabelError(
            "wrong_size",
            f"is made for {columns} x {rows} pixels, but its image has {width} x {height}{turned}: "
            "label the image as it is",
        )


def _check_values(mask: np.ndarray, classes: list[str], clean: bool) -> None:
    values = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
    if not clean and IGNORED in values and set(values) <= {0, IGNORED}:
        raise LabelError(
            "binary_mask",
            "holds no value but 0 and 255, and 255 means ignored: "
            f"write the class index instead of 255 (1 is '{classes[0]}'), or call the image clean in "
            "parts.csv if it shows no object",
        )
    if unknown := [int(value) for value in values if len(classes) < value < IGNORED]:
        raise LabelError(
            "unknown_class",
            f"holds the value {unknown[0]}, but the classes are 1 to {len(classes)} {classes} "
            "and 255 is ignored: correct the mask, or data.classes",
        )


def _check_extent(corners: np.ndarray, width: int, height: int) -> None:
    """Refuse shapes that lie beside the image, or reach farther out of it than it is large."""
    size = np.array([width, height])
    low, high = corners.min(axis=0), corners.max(axis=0)
    if (low < -size).any() or (high > 2 * size).any() or (high < 0).any() or (low > size).any():
        raise LabelError(
            "wrong_size",
            f"has a shape outside of its image of {width} x {height} pixels, or far beyond its edge: "
            "label the image as it is",
        )
    if (high <= 1).all():
        raise LabelError(
            "wrong_size",
            "has a shape within the first pixel, as if its coordinates were shares of the image: export "
            "them in pixels",
        )


def _outline(shape: _Shape) -> np.ndarray:
    """Return a shape's corners, N 2 (x, y)."""
    points = np.array(shape.points, dtype=float).reshape(-1, 2)
    if shape.shape_type == "polygon" and len(points) >= 3:
        return points
    if shape.shape_type == "rectangle" and len(points) in (2, 4):
        (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
        return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    if shape.shape_type == "circle" and len(points) == 2:
        centre, rim = points
        angles = np.linspace(0, 2 * np.pi, _CIRCLE_CORNERS, endpoint=False)
        directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        return centre + np.linalg.norm(rim - centre) * directions
    raise LabelError(
        "unsupported",
        f"has a '{shape.shape_type}' of {len(points)} points: "
        "only polygons (3 points or more), rectangles (2 or 4) and circles (2) enclose an area",
    )


def _first_location(error: ValidationError) -> str:
    return ".".join(map(str, error.errors()[0]["loc"])) or "the JSON"
