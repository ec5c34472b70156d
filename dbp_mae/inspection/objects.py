"""The objects in a segmented image: connected regions of one class, with what a report needs."""

from dataclasses import dataclass

import cv2
import numpy as np

from dbp_mae.inspection.model_card import ModelCard


@dataclass(frozen=True)
class InspectionObject:
    """A connected region of one class, in pixels of the image."""

    class_index: int
    """As in the mask: 1 is the first class."""
    class_name: str
    box: tuple[int, int, int, int]
    """Left, top, width, height."""
    area: int
    score: float
    """Mean probability of the class over the region."""
    contour: list[list[int]]
    """Outer border as [x, y] points; straight runs keep their ends only."""
    defect: bool


def find_objects(
    mask: np.ndarray, probabilities: np.ndarray, card: ModelCard
) -> list[InspectionObject]:
    """Find the regions (8-connected) of each class in a mask (H W, uint8).

    Args:
        probabilities: (K + 1) H W.
        card: names the classes; regions below its `min_area` or `min_score` are left out.
    """
    return [
        found
        for index in range(1, len(card.classes) + 1)
        for found in _objects_of_class(mask == index, probabilities[index], index, card)
    ]


def _objects_of_class(
    pixels: np.ndarray, probability: np.ndarray, index: int, card: ModelCard
) -> list[InspectionObject]:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        pixels.astype(np.uint8), connectivity=8
    )
    objects = []
    for label in range(1, count):  # 0 is everything else
        left, top, width, height, area = (int(value) for value in stats[label])
        if area < card.min_area:
            continue
        window = np.s_[top : top + height, left : left + width]
        region = labels[window] == label
        score = float(probability[window][region].mean())
        if score < card.min_score:
            continue
        info = card.classes[index - 1]
        objects.append(
            InspectionObject(
                class_index=index,
                class_name=info.name,
                box=(left, top, width, height),
                area=area,
                score=score,
                contour=_outer_border(region, left, top),
                defect=info.defect,
            )
        )
    return objects


def _outer_border(region: np.ndarray, left: int, top: int) -> list[list[int]]:
    contours, _ = cv2.findContours(
        region.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=(left, top)
    )
    return contours[0][:, 0].tolist()
