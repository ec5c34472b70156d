"""A model file on labelled images: where its objects lie on the labelled ones, at every score."""

import time
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from dbp_mae.data.images import read_mask
from dbp_mae.data.labels import IGNORED
from dbp_mae.data.manifest import labelled_in
from dbp_mae.errors import UserError
from dbp_mae.inspection.images import ImageError, read_image
from dbp_mae.inspection.objects import InspectionObject
from dbp_mae.inspection.segmenter import Segmenter
from dbp_mae.segmentation.metrics import (
    Overlap,
    Rate,
    components,
    confusion_matrix,
    escape_and_overkill,
    match_objects,
    overlap,
)

THRESHOLDS = [round(0.05 * step, 2) for step in range(21)]
"""The least scores that are tried."""
NEIGHBOURS = 2
"""How many thresholds on either side a choice is averaged over."""


@dataclass(frozen=True)
class Judged:
    """One image, judged."""

    confusion: NDArray[np.int64]
    scores: list[NDArray[np.float64]]
    """By defect class: the score of each reported object, those below the card's threshold too."""
    overlaps: list[Overlap]
    """By defect class: how these objects lie on the labelled ones."""
    seconds: float

    @property
    def defects(self) -> int:
        """How many defects are labelled."""
        return sum(laid.iou.shape[1] for laid in self.overlaps)

    def at(self, min_score: float, match_iou: float) -> tuple[int, int, bool]:
        """Return the defects found and the false ones reported from a score on, and if the line rejects."""
        found = false = reported = 0
        for scores, laid in zip(self.scores, self.overlaps, strict=True):
            matches = match_objects(laid.of(scores >= min_score), match_iou)
            found += int(matches.found.sum())
            false += int(matches.false.sum())
            reported += int((scores >= min_score).sum())
        return found, false, reported > 0


@dataclass(frozen=True)
class OperatingPoint:
    """What a score threshold finds, and what it costs."""

    found: Rate
    """Of the labelled defects."""
    false: int
    """Reported objects that are none."""
    false_per_image: float | None
    escape: Rate
    """Defective images accepted."""
    overkill: Rate
    """Images without a defect rejected; one whose reports are all on ignored pixels is no trial."""

    @property
    def f1(self) -> float:
        """Harmonic mean of the shares of defects found and of reports that are true."""
        labelled_and_reported = self.found.trials + self.found.count + self.false
        return 2 * self.found.count / max(1, labelled_and_reported)

    @property
    def youden(self) -> float:
        """Youden's index (Cancer, 1950) of the verdicts: 1 is perfect; 0 is chance, or unknown."""
        if self.escape.share is None or self.overkill.share is None:
            return 0.0
        return 1 - self.escape.share - self.overkill.share


def labelled_files(
    frame: pd.DataFrame, split: str, source: Path, masks: Path
) -> list[tuple[Path, Path]]:
    """Return image and mask of each labelled image of a split of a validated manifest.

    Args:
        source: folder where the manifest's paths start.
        masks: folder where its mask paths start.
    """
    rows = labelled_in(frame, split)
    return [
        (source / path, masks / mask)
        for path, mask in zip(rows["path"], rows["mask_path"], strict=True)
    ]


def judge(segmenter: Segmenter, files: list[tuple[Path, Path]]) -> list[Judged]:
    """Judge a model on pairs of image and mask."""
    lenient = copy(segmenter)  # the same masks, but all objects: the sweep needs the weak ones too
    lenient.card = segmenter.card.model_copy(update={"min_score": 0.0})
    return [_judge(lenient, *pair) for pair in tqdm(files, "judge", unit="image", disable=None)]


def operating_point(
    judged: list[Judged],
    min_score: float,
    match_iou: float,
    groups: NDArray[np.int_] | None = None,
) -> OperatingPoint:
    """Judge the defects reported from a score on; all is unknown where no class is a defect.

    Args:
        groups: the number of the part that each image shows; None: each shows another.
    """
    concerned = [image for image in judged if image.overlaps]  # all of them or none
    counts = np.array([image.at(min_score, match_iou) for image in concerned], dtype=int)
    found, false, rejected = counts.reshape(-1, 3).T
    defects = np.array([image.defects for image in concerned], dtype=int)
    # An image that reports on ignored pixels alone reject may be good or not.
    known = (defects > 0) | (false > 0) | (rejected == 0)
    parts = np.arange(len(judged)) if groups is None else groups
    escape, overkill = escape_and_overkill(
        defects[known] > 0, rejected[known] > 0, parts[: len(concerned)][known]
    )
    return OperatingPoint(
        found=Rate(int(found.sum()), int(defects.sum())),
        false=int(false.sum()),
        false_per_image=float(false.mean()) if concerned else None,
        escape=escape,
        overkill=overkill,
    )


def best_min_score(judged: list[Judged], match_iou: float) -> float | None:
    """Return the score from which objects and verdicts are best together, the middle of equals.

    F1 of the reported defects and Youden's index of the verdicts are added: by F1 alone a false report on
    a good image is worth a found defect on one that is rejected anyway. The sum is averaged with that of
    the neighbouring thresholds: on few images a lone peak is chance. None where no labelled defect is
    found at any, for these images then say nothing of it.
    """
    points = [operating_point(judged, score, match_iou) for score in THRESHOLDS]
    if not any(point.found.count for point in points):
        return None
    merit = np.array([point.f1 + point.youden for point in points])
    window = np.ones(2 * NEIGHBOURS + 1)
    smooth = np.convolve(np.pad(merit, NEIGHBOURS, mode="edge"), window, mode="valid").round(9)
    first = int(smooth.argmax())
    equals = int(np.argmin(np.append(smooth[first:] == smooth[first], False)))
    return THRESHOLDS[first + (equals - 1) // 2]


def _judge(segmenter: Segmenter, path: Path, mask_path: Path) -> Judged:
    image, target = read_labelled(segmenter, path, mask_path)
    start = time.perf_counter()
    segmentation = segmenter.segment(image)
    seconds = time.perf_counter() - start
    scores, overlaps = [], []
    for index, item in enumerate(segmenter.card.classes, start=1):
        if not item.defect:
            continue
        objects = [found for found in segmentation.objects if found.class_index == index]
        reported = _numbered(objects, segmentation.mask == index)
        scores.append(np.array([found.score for found in objects]))
        overlaps.append(overlap(reported, components(target == index), target == IGNORED))
    confusion = confusion_matrix(segmentation.mask, target, len(segmenter.card.classes), IGNORED)
    return Judged(confusion, scores, overlaps, seconds)


def read_labelled(
    segmenter: Segmenter, path: Path, mask_path: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Return an image as the model takes it, (H, W, channels), and its mask, (H, W).

    Raises:
        UserError: the image cannot be read.
    """
    card = segmenter.card
    try:
        return read_image(path, card.channels, card.white_level), read_mask(mask_path)
    except ImageError as error:
        raise UserError(f"{error} Run the validate stage again.") from None


def _numbered(objects: list[InspectionObject], mask: np.ndarray) -> np.ndarray:
    """Return H W with the number of each object, from 1, on its component of the class's mask."""
    labels = components(mask)
    numbers = np.zeros(labels.max() + 1, dtype=int)
    for number, found in enumerate(objects, start=1):
        column, row = found.contour[0]
        numbers[labels[row, column]] = number
    return numbers[labels]
