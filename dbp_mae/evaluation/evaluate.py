"""The shipped model file on the held-out images, through the very code that serves it."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dbp_mae.data.manifest import labelled_in
from dbp_mae.errors import UserError
from dbp_mae.evaluation.judging import (
    THRESHOLDS,
    Judged,
    OperatingPoint,
    judge,
    labelled_files,
    operating_point,
    read_labelled,
)
from dbp_mae.evaluation.overlays import draw_overlay
from dbp_mae.inspection.segmenter import Segmenter
from dbp_mae.params import Params
from dbp_mae.segmentation.metrics import (
    bootstrap_weights,
    class_areas,
    iou,
    iou_of_areas,
    mean_iou,
)

RESAMPLES = 2000
LEAST_GROUPS = 5
"""Of fewer, resamples differ too little: the interval would seem sure."""


@dataclass(frozen=True)
class Evaluation:
    """What came out, ready to be written."""

    metrics: dict[str, Any]
    """mIoU with its interval, IoU by class, defects found, escape and overkill; None: unknown."""
    classes: pd.DataFrame
    """One row a class: labelled pixels, IoU, and that of the control."""
    per_image: pd.DataFrame
    """One row a held-out image, the worst first."""
    thresholds: pd.DataFrame
    """One row a score threshold: what would be found, and what it would cost."""
    overlays: dict[str, NDArray[np.uint8]]
    """Pictures of the worst images by file name."""


def evaluate(
    model: Path,
    scratch: Path | None,
    frame: pd.DataFrame,
    source: Path,
    data_folder: Path,
    params: Params,
) -> Evaluation:
    """Judge a model file on the held-out labelled images of a validated manifest.

    Args:
        model: the file that is shipped.
        scratch: the control, the same training without pre-training, or None.
        frame: the validated manifest.
        source: folder of the images; the manifest's paths start here.
        data_folder: folder of the masks; the manifest's mask paths start here.
        params: `data.classes`, `data.seed` and `evaluate` count.

    Raises:
        UserError: no held-out image is labelled, one cannot be read, or a file was made for other
            classes.
    """
    held_out = labelled_in(frame, "test")
    if held_out.empty:
        raise UserError(
            "No image of the test split is labelled, so nothing can be evaluated: "
            "label more images, or raise data.test_share in params.yaml."
        )
    files = labelled_files(frame, "test", source, data_folder)
    segmenter = _load(model, params)
    judged = judge(segmenter, files)
    control = judge(_load(scratch, params), files) if scratch else None

    min_score, match_iou = segmenter.card.min_score, params.evaluate.match_iou
    groups, names = pd.factorize(held_out["group"])
    shipped = operating_point(judged, min_score, match_iou, groups)
    classes = _classes(segmenter, judged, control)
    metrics = {
        **_pixel_metrics(judged, control, groups, params.data.seed),
        "iou": dict(zip(classes["class"], classes["iou"], strict=True)),
        **_defect_metrics(shipped),
    }
    metrics["images"] |= {"test": len(held_out), "groups": len(names)}
    points = {score: operating_point(judged, score, match_iou) for score in THRESHOLDS}
    per_image = _per_image(held_out, judged, min_score, match_iou)
    overlays = {}
    for rank, row in enumerate(per_image.index[: params.evaluate.overlays], start=1):
        name = f"{rank:02d}.png"
        image, target = read_labelled(segmenter, *files[row])
        overlays[name] = draw_overlay(image, segmenter.segment(image).mask, target)
        per_image.loc[row, "overlay"] = name
    return Evaluation(_tidy(metrics), classes, per_image, _sweep(points), overlays)


def _load(path: Path, params: Params) -> Segmenter:
    segmenter = Segmenter.load(path)
    names = [item.name for item in segmenter.card.classes]
    if names != params.data.classes:
        raise UserError(
            f"{path} was made for the classes {names}, but data.classes in params.yaml is "
            f"{params.data.classes}: both must be the same (dvc repro makes a model of those in params.yaml)."
        )
    return segmenter


def _total(judged: list[Judged]) -> NDArray[np.int64]:
    return np.sum([image.confusion for image in judged], axis=0)


def _classes(
    segmenter: Segmenter, judged: list[Judged], control: list[Judged] | None
) -> pd.DataFrame:
    total = _total(judged)
    return pd.DataFrame(
        {
            "class": [item.name for item in segmenter.card.classes],
            "color": [item.color for item in segmenter.card.classes],
            "defect": [item.defect for item in segmenter.card.classes],
            "pixels": total.sum(axis=1)[1:],
            "iou": iou(total)[1:],
            "scratch_iou": iou(_total(control))[1:] if control else math.nan,
        }
    )


def _pixel_metrics(
    judged: list[Judged], control: list[Judged] | None, groups: NDArray[np.int_], seed: int
) -> dict[str, Any]:
    """Return mIoU and the gain over the control, with 95 % bootstrap intervals over enough groups.

    Args:
        groups: the number of the part that each image shows, from 0.
    """
    parts = int(groups.max()) + 1
    weights = bootstrap_weights(parts, RESAMPLES, seed)
    resampled = _resample(judged, groups, weights)
    miou = float(mean_iou(_total(judged)))
    low, high = _interval(resampled, parts)
    metrics = {"miou": miou, "miou_low": low, "miou_high": high}
    if control:
        scratch = float(mean_iou(_total(control)))
        low, high = _interval(resampled - _resample(control, groups, weights), parts)
        gain = {"gain": miou - scratch, "gain_low": low, "gain_high": high}
        return {**metrics, "scratch_miou": scratch, **gain}
    return metrics | dict.fromkeys(("scratch_miou", "gain", "gain_low", "gain_high"))


def _resample(judged: list[Judged], groups: np.ndarray, weights: np.ndarray) -> NDArray[np.float64]:
    """Return the mIoU of each resample of the groups, (resamples,); nan where no class is labelled.

    A class that a resample lacks keeps its IoU over all groups, or the mean would be of other classes.
    """
    areas = np.stack([class_areas(image.confusion) for image in judged])
    by_group = np.zeros((weights.shape[1], *areas.shape[1:]))  # exact: counts are below 2^53
    np.add.at(by_group, groups, areas)
    whole = areas.sum(axis=0)
    resampled = np.tensordot(weights.astype(float), by_group, axes=1)
    shares = np.where(resampled[:, 2] > 0, iou_of_areas(resampled), iou_of_areas(whole))
    judgeable = whole[2, 1:] > 0
    return (
        shares[:, 1:][:, judgeable].mean(axis=1)
        if judgeable.any()
        else np.full(len(weights), np.nan)
    )


def _interval(values: np.ndarray, groups: int) -> tuple[float | None, float | None]:
    if groups < LEAST_GROUPS:
        return None, None
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _defect_metrics(point: OperatingPoint) -> dict[str, dict[str, Any]]:
    escape, overkill = (rate.interval or (None, None) for rate in (point.escape, point.overkill))
    return {
        "defects": {
            "labelled": point.found.trials,
            "found_share": point.found.share,
            "false_per_image": point.false_per_image,
        },
        "images": {
            "defective": point.escape.trials,
            "escape_share": point.escape.share,
            "escape_low": escape[0],
            "escape_high": escape[1],
            "good": point.overkill.trials,
            "overkill_share": point.overkill.share,
            "overkill_low": overkill[0],
            "overkill_high": overkill[1],
        },
    }


def _sweep(points: dict[float, OperatingPoint]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "min_score": list(points),
            "found_share": [point.found.share for point in points.values()],
            "false_per_image": [point.false_per_image for point in points.values()],
            "escape_share": [point.escape.share for point in points.values()],
            "overkill_share": [point.overkill.share for point in points.values()],
        },
        dtype=float,
    )


def _per_image(
    held_out: pd.DataFrame, judged: list[Judged], min_score: float, match_iou: float
) -> pd.DataFrame:
    """Return one row an image, by its number among the held-out ones; the worst first."""
    rows = []
    for path, group, image in zip(held_out["path"], held_out["group"], judged, strict=True):
        found, false, rejected = image.at(min_score, match_iou)
        rows.append(
            {
                "path": path,
                "group": group,
                "miou": float(mean_iou(image.confusion)),
                "defects": image.defects,
                "found": found,
                "false": false,
                "verdict": "reject" if rejected else "accept",
                "seconds": image.seconds,
            }
        )
    table = pd.DataFrame(rows)
    wrong = table["defects"] - table["found"] + table["false"]
    return table.assign(wrong=-wrong).sort_values(["wrong", "miou"]).drop(columns="wrong")


def _tidy(value: Any) -> Any:
    """Round to four digits, and make nan None, throughout nested dicts: as it stands in JSON."""
    if isinstance(value, dict):
        return {key: _tidy(item) for key, item in value.items()}
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    return value
