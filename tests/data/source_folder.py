"""A small source folder of real files, sound in every way; tests damage it."""

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dbp_mae.params import DataParams

HEIGHT, WIDTH = 32, 48
PARTS = 6
FRAMES = 2
CLASSES = ["wire", "ball"]
FRAME = "p0_f0"
"""The name of the image that tests damage."""


def data_params(source: Path, **changes: Any) -> DataParams:
    """Return parameters that fit the folder of `write_source`."""
    values: dict[str, Any] = {
        "source": source,
        "images": "images",
        "classes": CLASSES,
        "ignore_zero": False,
        "defects": ["ball"],
        "channels": 1,
        "white_level": 65535,
        "upright": False,
        "share": 1.0,
        "splits": {},
        "group_pattern": r"^(p\d+)_",
        "val_share": 0.2,
        "test_share": 0.3,
        "seed": 0,
    }
    return DataParams(**values | changes)


def write_source(source: Path, labels: str = "masks") -> Path:
    """Write 6 parts of 2 frames each: all labelled, by index masks or by LabelMe files."""
    for part in range(PARTS):
        for frame in range(FRAMES):
            name = f"p{part}_f{frame}"
            write_png(source / f"images/{name}.png", photograph(FRAMES * part + frame))
            if labels == "masks":
                write_png(source / f"masks/{name}.png", index_mask())
            else:
                write_labelme(source / f"labels/{name}.json", [WIRE, BALL])
    return source


def photograph(seed: int) -> np.ndarray:
    """Return a smooth random picture, uint8 H W."""
    noise = np.random.default_rng(seed).normal(size=(HEIGHT, WIDTH))
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    return cv2.normalize(smooth, None, 20, 230, cv2.NORM_MINMAX).astype(np.uint8)


def index_mask() -> np.ndarray:
    """Return a mask of both classes with two ignored pixels, uint8 H W."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[4:8, 4:40] = 1
    mask[16:24, 16:24] = 2
    mask[0, :2] = 255
    return mask


WIRE = {"label": "wire", "shape_type": "rectangle", "points": [[4, 4], [40, 8]]}
BALL = {"label": "ball", "shape_type": "circle", "points": [[20, 20], [24, 20]]}


def write_png(path: Path, array: np.ndarray) -> None:
    """Write an array as a PNG, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array)


def write_labelme(path: Path, shapes: list[dict[str, Any]], **changes: Any) -> None:
    """Write a LabelMe file for an image of the folder's size."""
    content = {"shapes": shapes, "imageWidth": WIDTH, "imageHeight": HEIGHT} | changes
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_parts(source: Path, rows: list[dict[str, str]]) -> None:
    """Write parts.csv with the columns of the first row."""
    with (source / "parts.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
