"""Images and labels in any accepted form into one manifest and one folder of index masks."""

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from dbp_mae.data.labels import IGNORED, LabelError, read_label
from dbp_mae.data.manifest import manifest_from_rows
from dbp_mae.data.processes import map_in_processes
from dbp_mae.data.source import Sample, find_samples
from dbp_mae.data.splits import assign_splits, hold_out
from dbp_mae.inspection.drift import image_statistics
from dbp_mae.inspection.images import ImageError, convert_samples, decode_samples, encode_png
from dbp_mae.params import DataParams

PHASH_SIDE = 16
"""Side of the perceptual hash in bits. With the usual 8, images of unlike parts in one fixture
often share a hash."""

AT_ONCE = 32
"""Images that a process describes before it reports."""


def ingest(source: Path, params: DataParams, masks: Path) -> pd.DataFrame:
    """Describe each image of a source folder in a row, and write the masks of the labelled ones.

    A file that cannot be read or used becomes a row with the reason in image_error or label_error;
    validation judges it.

    Args:
        source: folder with images, masks/ or labels/, and perhaps parts.csv.
        masks: folder to write index PNGs to, of the images' names.

    Raises:
        UserError: the folder's contents do not fit together, or too few parts are labelled.
    """
    samples = find_samples(source, params)
    masks.mkdir(parents=True, exist_ok=True)
    rows = map_in_processes(_describe, samples, AT_ONCE, source=source, params=params, masks=masks)
    frame = manifest_from_rows(tqdm(rows, "ingest", len(samples), unit="image", disable=None))
    frame["split"] = (
        assign_splits(frame, params.val_share, params.test_share, params.seed)
        if params.classes
        else hold_out(frame, params.val_share, params.seed)
    )
    return frame


def _describe(sample: Sample, source: Path, params: DataParams, masks: Path) -> dict[str, Any]:
    """Return the manifest's row of one image; its split only where the source gives it."""
    path = params.images / sample.image
    row: dict[str, Any] = {
        "path": path.as_posix(),
        "group": sample.group,
        "split": sample.split,
        "label_state": _label_state(sample, params.classes),
    }
    try:
        data = (source / path).read_bytes()
        row["sha256"] = hashlib.sha256(data).hexdigest()
        samples = decode_samples(data)
    except ImageError as error:
        return row | {"image_error": str(error)}
    except OSError as error:
        return row | {"image_error": f"The file cannot be opened ({error.strerror})."}
    image = convert_samples(samples, params.channels, params.white_level)
    row |= _describe_image(image)
    row |= {"channels": samples.shape[2], "bit_depth": samples.itemsize * 8}
    if row["label_state"] == "labelled":
        row |= _describe_label(sample, source, params, image.shape[:2], masks)
    return row


def _label_state(sample: Sample, classes: list[str]) -> str:
    """Return the manifest's label state; a clean image is labelled as all background.

    Without classes no label is read.
    """
    if not classes:
        return "excluded" if sample.state == "excluded" else "unlabelled"
    if sample.state is None:
        return "unlabelled" if sample.label is None else "labelled"
    return "labelled" if sample.state == "clean" else sample.state


def _describe_image(image: np.ndarray) -> dict[str, Any]:
    height, width, channels = image.shape
    mean, std = cv2.meanStdDev(image)
    picture = Image.fromarray(image[..., 0] if channels == 1 else image)
    return image_statistics(image) | {
        "width": width,
        "height": height,
        "channel_mean": (mean[:, 0] / 255).tolist(),
        "channel_std": (std[:, 0] / 255).tolist(),
        "phash": _perceptual_hash(picture),
    }


def _perceptual_hash(picture: Image.Image) -> str | None:
    """Return the hash by which validation finds lookalikes.

    None without imagehash, on a machine that only trains: what it ingests is not validated.
    """
    try:
        import imagehash
    except ImportError:
        return None
    return str(imagehash.phash(picture, hash_size=PHASH_SIDE))


def _describe_label(
    sample: Sample, source: Path, params: DataParams, size: tuple[int, int], masks: Path
) -> dict[str, Any]:
    """Write the image's mask (`size` is height, width) and count its pixels, or say why not."""
    try:
        mask = _mask_of(sample, source, params, *size)
    except LabelError as error:
        name = sample.label.as_posix() if sample.label else "parts.csv"
        return {"label_error": f"{name} {error}.", "label_error_kind": error.kind}
    file = sample.image.with_suffix(".png")
    (masks / file).parent.mkdir(parents=True, exist_ok=True)
    png = encode_png(mask)
    (masks / file).write_bytes(png)
    counts = np.bincount(mask.ravel(), minlength=256)
    return {
        "mask_path": f"masks/{file.as_posix()}",
        "mask_sha256": hashlib.sha256(png).hexdigest(),
        "pixels": counts[: len(params.classes) + 1].tolist(),
        "ignored_pixels": int(counts[IGNORED]),
    }


def _mask_of(
    sample: Sample, source: Path, params: DataParams, height: int, width: int
) -> np.ndarray:
    if sample.label is None and sample.state == "labelled":
        raise LabelError(
            "contradiction",
            f"says that {sample.image.as_posix()} is labelled, but it has no label file: "
            "add one, or call it clean or unlabelled",
        )
    if sample.label is None:
        return np.zeros((height, width), np.uint8)
    clean = sample.state == "clean"
    mask = read_label(source / sample.label, params.classes, height, width, clean)
    if clean and np.isin(mask, range(1, len(params.classes) + 1)).any():
        raise LabelError(
            "contradiction",
            "marks objects, but parts.csv says that the image is clean: correct one of them",
        )
    return np.where(mask == 0, IGNORED, mask) if params.ignore_zero else mask
