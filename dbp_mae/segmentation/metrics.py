"""How good a segmentation is: by pixel, by object, by image."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


def confusion_matrix(
    prediction: NDArray[np.integer],
    target: NDArray[np.integer],
    classes: int,
    ignore: int = 255,
) -> NDArray[np.int64]:
    """Count pixels by labelled class (row) and predicted class (column).

    Args:
        prediction: class of each pixel, 0 background to `classes`; any shape.
        target: labelled class of each pixel, or `ignore`; the same shape.
        classes: number of classes K, without background.
        ignore: label of the pixels that count nowhere.

    Returns:
        (K+1, K+1) counts.
    """
    assert prediction.shape == target.shape, f"{prediction.shape} against {target.shape}"
    valid = target != ignore
    size = classes + 1
    cells = target[valid].astype(np.int64) * size + prediction[valid]
    return np.bincount(cells, minlength=size * size).reshape(size, size)


def class_areas(confusion: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the pixels in both label and prediction, in either, and in the label, by class.

    They add up over images, as confusion matrices do, and take less room where classes are many.

    Args:
        confusion: (..., K+1, K+1) counts.

    Returns:
        (..., 3, K+1) counts, background first.
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    labelled = confusion.sum(axis=-1)
    union = labelled + confusion.sum(axis=-2) - hits
    return np.stack([hits, union, labelled], axis=-2)


def iou(confusion: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return intersection over union by class; nan where a class is neither labelled nor predicted.

    Args:
        confusion: (..., K+1, K+1) counts.

    Returns:
        (..., K+1) shares, background first.
    """
    return iou_of_areas(class_areas(confusion))


def iou_of_areas(areas: NDArray[np.number]) -> NDArray[np.float64]:
    """Return what `iou` does, from counts (..., 3, K+1) of `class_areas`."""
    hits, union = areas[..., 0, :], areas[..., 1, :]
    return np.divide(hits, union, out=np.full(hits.shape, np.nan), where=union > 0)


def mean_iou(confusion: NDArray[np.integer]) -> NDArray[np.float64]:
    """Average the IoU over the labelled classes, without background.

    They are the same for every model; a class that only a prediction names would count for some alone.

    Args:
        confusion: (..., K+1, K+1) counts.

    Returns:
        (...) shares; nan where no class is labelled.
    """
    labelled = confusion.sum(axis=-1)[..., 1:] > 0
    count = labelled.sum(axis=-1)
    total = np.where(labelled, iou(confusion)[..., 1:], 0.0).sum(axis=-1)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)


def components(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Number the 8-connected components of a mask (H W) from 1; 0 elsewhere."""
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    return np.asarray(labels, dtype=np.int32)


@dataclass(frozen=True)
class Overlap:
    """How P reported objects lie on T labelled ones."""

    iou: NDArray[np.float64]
    """(P, T) intersection over union, on the pixels that are not ignored."""
    ignored: NDArray[np.bool_]
    """(P,) whether more than half of a reported object lies on ignored pixels."""

    def of(self, chosen: NDArray[np.bool_]) -> "Overlap":
        """Return the overlap of some of the reported objects: `chosen` is (P,)."""
        return Overlap(self.iou[chosen], self.ignored[chosen])


def overlap(
    reported: NDArray[np.integer], labelled: NDArray[np.integer], ignored: NDArray[np.bool_]
) -> Overlap:
    """Lay reported objects of a class on the labelled objects of that class.

    Args:
        reported: H W, number of the reported object at a pixel from 1, or 0.
        labelled: H W, number of the labelled object at a pixel from 1, or 0.
        ignored: H W, pixels whose truth is unknown.
    """
    rows, columns = int(reported.max(initial=0)) + 1, int(labelled.max(initial=0)) + 1
    valid = ~ignored
    cells = reported[valid].astype(np.int64) * columns + labelled[valid]
    shared = np.bincount(cells, minlength=rows * columns).reshape(rows, columns)
    union = shared.sum(axis=1, keepdims=True) + shared.sum(axis=0, keepdims=True) - shared
    area = np.bincount(reported.ravel(), minlength=rows)
    on_ignored = np.bincount(reported[ignored], minlength=rows)
    shares = np.divide(shared, union, out=np.zeros(shared.shape), where=union > 0)
    return Overlap(shares[1:, 1:], (2 * on_ignored > area)[1:])


@dataclass(frozen=True)
class Matches:
    """Which objects were found: masks over the reported (P) and the labelled (T) ones."""

    found: NDArray[np.bool_]
    """(T,) labelled objects that a reported one matches; the others were missed."""
    false: NDArray[np.bool_]
    """(P,) reported objects that match none and do not lie mostly on ignored pixels."""


def match_objects(overlap: Overlap, match_iou: float) -> Matches:
    """Pair reported with labelled objects one to one, the best overlap first (as COCO does).

    Args:
        overlap: of the objects of one class in one image.
        match_iou: the least intersection over union of a pair.
    """
    reported, labelled = overlap.iou.shape
    taken, found = np.zeros(reported, dtype=bool), np.zeros(labelled, dtype=bool)
    rows, columns = np.nonzero(overlap.iou >= match_iou)
    best_first = np.argsort(-overlap.iou[rows, columns], kind="stable")
    for row, column in zip(rows[best_first], columns[best_first], strict=True):
        if not taken[row] and not found[column]:
            taken[row] = found[column] = True
    return Matches(found=found, false=~taken & ~overlap.ignored)


@dataclass(frozen=True)
class Rate:
    """So many of so many."""

    count: int
    trials: int
    witnesses: float | None = None
    """How many independent trials these are worth; None: as many as they are."""

    @property
    def share(self) -> float | None:
        """The share; None without a trial."""
        return self.count / self.trials if self.trials else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the share (Wilson, JASA 1927); None without a trial."""
        if not self.trials:
            return None
        z = 1.959963984540054
        share, n = self.count / self.trials, self.witnesses or self.trials
        centre = share + z * z / (2 * n)
        spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        scale = 1 + z * z / n
        return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def escape_and_overkill(
    defective: NDArray[np.bool_], rejected: NDArray[np.bool_], groups: NDArray[np.int_]
) -> tuple[Rate, Rate]:
    """Judge verdicts on N images.

    Args:
        defective: (N,) whether a defect is labelled.
        rejected: (N,) whether the verdict is to reject.
        groups: (N,) the number of the part that an image shows.

    Returns:
        Escapes, the defective images that were accepted, and overkill, the others rejected.
    """
    return (
        _rate(~rejected[defective], groups[defective]),
        _rate(rejected[~defective], groups[~defective]),
    )


def _rate(hits: NDArray[np.bool_], groups: NDArray[np.int_]) -> Rate:
    """Return a rate over images, as sure as if those of one group always agreed.

    So many are worth n^2 / sum(m^2) independent ones, m in each group (Kish, Survey Sampling, 1965).
    """
    sizes = np.unique(groups, return_counts=True)[1]
    alone = len(sizes) == len(hits)
    witnesses = None if alone else float(len(hits) ** 2 / np.square(sizes).sum())
    return Rate(int(hits.sum()), len(hits), witnesses)


def bootstrap_weights(groups: int, draws: int, seed: int) -> NDArray[np.int64]:
    """Draw how often each group occurs in each resample, (draws, groups).

    Groups, not images: the images of one part are no independent witnesses.
    """
    random = np.random.default_rng(seed)
    return random.multinomial(groups, np.full(groups, 1 / groups), size=draws)
