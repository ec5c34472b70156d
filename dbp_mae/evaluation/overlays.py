"""Pictures of what a segmentation got right and wrong, in colours everybody can tell apart."""

import cv2
import numpy as np

from dbp_mae.data.labels import IGNORED

# Okabe and Ito's colours for all kinds of colour vision, jfly.uni-koeln.de/color.
RIGHT, FALSE, MISSED, UNJUDGED = (0, 158, 115), (213, 94, 0), (86, 180, 233), (128, 128, 128)
FILL = 0.4
GAP = 8
MAX_SIDE = 1024


def draw_overlay(image: np.ndarray, prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Draw an image (uint8 H W C) beside itself with its segmentation judged in colour.

    Right: the labelled class; false: background, or another class; missed: labelled, but called
    background; ignored: not judged. `prediction` and `target` are uint8 H W, 255 ignored in the
    target. Larger images are reduced to 1024 pixels a side.

    Returns:
        uint8, H by two W and a gap, RGB.
    """
    picture = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    judged = picture.astype(np.float32)
    for colour, area in _areas(prediction, target):
        judged[area] += FILL * (np.array(colour, dtype=np.float32) - judged[area])
        judged[_rim(area)] = colour
    height, width = target.shape
    gap = np.full((height, GAP, 3), 255, dtype=np.uint8)
    pair = np.concatenate([picture, gap, judged.astype(np.uint8)], axis=1)
    scale = MAX_SIDE / max(height, width)
    return (
        cv2.resize(pair, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        if scale < 1
        else pair
    )


def _areas(
    prediction: np.ndarray, target: np.ndarray
) -> list[tuple[tuple[int, int, int], np.ndarray]]:
    ignored = target == IGNORED
    right = (prediction == target) & (target > 0)
    false = (prediction != target) & (prediction > 0) & ~ignored
    missed = (prediction == 0) & (target > 0) & ~ignored
    return [(UNJUDGED, ignored), (RIGHT, right), (FALSE, false), (MISSED, missed)]


def _rim(area: np.ndarray) -> np.ndarray:
    """Return the outermost pixels of an area, so that one of a few pixels still shows."""
    inner = cv2.erode(area.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0)
    return area & (inner == 0)
