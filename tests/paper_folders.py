"""Tiny folders of the layouts of ImageNet-1K and of ADE20K, as their archives unpack."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

SYNSETS = ("n01440764", "n02105855")
TRAINING, VALIDATION = 6, 2


def write_imagenet(folder: Path) -> Path:
    """Write train/SYNSET/*.JPEG, val/*.JPEG with the oddities of the real one: grey, CMYK, a PNG."""
    for number, synset in enumerate(SYNSETS):
        for index in range(TRAINING):
            picture = photograph(10 * number + index)
            _save(picture, folder / f"train/{synset}/{synset}_{index}.JPEG")
    for index in range(VALIDATION):
        _save(photograph(100 + index), folder / f"val/ILSVRC2012_val_{index + 1:08}.JPEG")
    odd = folder / "train" / SYNSETS[0]
    _save(photograph(200), odd / "grey.JPEG", mode="L")
    _save(photograph(201), odd / "cmyk.JPEG", mode="CMYK")
    _save(photograph(202), odd / "png.JPEG", kind="PNG")
    return folder


def write_ade20k(folder: Path, classes: int) -> Path:
    """Write images/ and annotations/ of training and validation; every class is in every image."""
    names = [
        *(f"training/ADE_train_{index + 1:08}" for index in range(TRAINING)),
        *(f"validation/ADE_val_{index + 1:08}" for index in range(VALIDATION)),
    ]
    for number, name in enumerate(names):
        picture = photograph(number)
        _save(picture, folder / f"images/{name}.jpg")
        stripes = np.arange(picture.shape[1]) * (classes + 1) // picture.shape[1]
        mask = np.broadcast_to(stripes.astype(np.uint8), picture.shape[:2])
        _save(np.ascontiguousarray(mask), folder / f"annotations/{name}.png", kind="PNG")
    (folder / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tName\n")
    return folder


def photograph(seed: int) -> np.ndarray:
    """Return a smooth random picture, uint8 H W 3."""
    noise = np.random.default_rng(seed).normal(size=(80, 160, 3))
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return cv2.normalize(smooth, None, 20, 230, cv2.NORM_MINMAX).astype(np.uint8)


def _save(picture: np.ndarray, path: Path, mode: str | None = None, kind: str = "JPEG") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(picture)
    (image.convert(mode) if mode else image).save(path, kind)
