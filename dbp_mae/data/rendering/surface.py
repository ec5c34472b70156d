"""The canvas a device is painted on: maps of reflectance and slope, and the labels beside them.

The labels are painted by the same strokes as the surface, so they are exact by construction.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import cv2
import numpy as np

from dbp_mae.data.rendering.layout import FIELD

MARGIN = 17.0
"""Width of the border around the field of view that poses may bring into it."""


class Label(IntEnum):
    """The classes, as numbered in the masks."""

    BACKGROUND = 0
    WIRE = 1
    BALL = 2
    WEDGE = 3
    EPOXY = 4


class Material(NamedTuple):
    """How a surface reflects; each value one number or a map of them."""

    diffuse: np.ndarray | float
    gloss: np.ndarray | float
    spread: np.ndarray | float
    """Width of the gloss lobe, in units of slope: small for a mirror."""


Slopes = tuple[np.ndarray, np.ndarray]
"""Slope of the height along x and along y."""


class Window(NamedTuple):
    """A part of the canvas and the coordinates of its points."""

    rows: slice
    columns: slice
    x: np.ndarray
    y: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """Return the height and width."""
        return self.y.size, self.x.size


@dataclass(frozen=True)
class Surface:
    """Maps of a device over the canvas, all of one square shape."""

    scale: float
    """Canvas points to a unit of length."""
    label: np.ndarray
    diffuse: np.ndarray
    gloss: np.ndarray
    spread: np.ndarray
    slope_x: np.ndarray
    slope_y: np.ndarray
    raised: np.ndarray
    """Where a wire hangs above the device and casts a shadow: 0 to 1."""

    @classmethod
    def blank(cls, scale: float) -> "Surface":
        """Return empty maps that cover the field of view and its margin."""
        side = round((FIELD + 2 * MARGIN) * scale)
        label = np.zeros((side, side), np.uint8)
        return cls(scale, label, *np.zeros((6, side, side), np.float32))

    @property
    def shape(self) -> tuple[int, int]:
        """Return the height and width of the canvas."""
        return self.label.shape[0], self.label.shape[1]

    def window(self, low: np.ndarray, high: np.ndarray) -> Window:
        """Return the part of the canvas between two corners, cut to the canvas."""
        offset = FIELD / 2 + MARGIN
        first = np.maximum(np.floor((low + offset) * self.scale), 0).astype(int)
        last = np.minimum(np.ceil((high + offset) * self.scale), self.shape[::-1]).astype(int)
        last = np.maximum(first, last)
        x, y = (
            (np.arange(a, b, dtype=np.float32) + 0.5) / self.scale - offset
            for a, b in zip(first, last, strict=True)
        )
        return Window(slice(first[1], last[1]), slice(first[0], last[0]), x[None, :], y[:, None])

    def around(self, centre: np.ndarray, radius: float) -> Window:
        """Return the window of a circle."""
        return self.window(centre - radius, centre + radius)

    def strip(self, rows: slice) -> "Surface":
        """Return some rows of the maps, as views."""
        maps = (self.diffuse, self.gloss, self.spread, self.slope_x, self.slope_y, self.raised)
        return Surface(self.scale, self.label[rows], *(each[rows] for each in maps))

    def whole(self) -> Window:
        """Return the window of the whole canvas."""
        return self.around(np.zeros(2), FIELD / 2 + MARGIN)

    def points(self, outline: np.ndarray) -> np.ndarray:
        """Return an outline (N 2) in whole canvas points, for cv2."""
        return np.round((outline + FIELD / 2 + MARGIN) * self.scale - 0.5).astype(np.int32)

    def paint(
        self,
        window: Window,
        cover: np.ndarray,
        material: Material,
        slopes: Slopes,
        label: Label | None = None,
    ) -> None:
        """Lay `material` over a window in the strength of `cover` (0 to 1), and `label` from 0.5."""
        area = window.rows, window.columns
        maps = (self.diffuse, self.gloss, self.spread, self.slope_x, self.slope_y)
        for target, value in zip(maps, (*material, *slopes), strict=True):
            target[area] += cover * (value - target[area])
        if label is not None:
            self.label[area][cover >= 0.5] = label

    def darken(self, window: Window, factor: np.ndarray) -> None:
        """Multiply what a window reflects."""
        self.diffuse[window.rows, window.columns] *= factor
        self.gloss[window.rows, window.columns] *= factor


def noise(
    rng: np.random.Generator, shape: tuple[int, int], grain: float, stretch: float = 1
) -> np.ndarray:
    """Return smooth unit noise (H W) of grains `grain` points wide and `stretch` times as high."""
    rows = min(max(2, round(shape[0] / grain / stretch)), shape[0])
    columns = min(max(2, round(shape[1] / grain)), shape[1])
    grains = rng.standard_normal((rows, columns), dtype=np.float32)
    return cv2.resize(grains, shape[::-1], interpolation=cv2.INTER_LINEAR)


def slopes_of(height: np.ndarray, scale: float) -> Slopes:
    """Return the slopes of a height map."""
    height = height.astype(np.float32)
    return (
        cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=scale / 8),
        cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=scale / 8),
    )


def local(window: Window, centre: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a window's coordinates along and across the direction `angle`, from `centre`."""
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = window.x - centre[0], window.y - centre[1]
    return x * cos + y * sin, y * cos - x * sin


def turned(along: np.ndarray, across: np.ndarray, angle: float) -> Slopes:
    """Return slopes along and across the direction `angle` as slopes along x and y."""
    cos, sin = np.cos(angle), np.sin(angle)
    return along * cos - across * sin, along * sin + across * cos
