"""How a camera sees a painted device: illumination, pose, focus, exposure, noise."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from dbp_mae.data.rendering.layout import FIELD
from dbp_mae.data.rendering.surface import MARGIN, Surface

SUPERSAMPLING = 2
"""Canvas points to a pixel, along each axis."""
RING_SLOPE = 0.45
"""Slope of the facets that throw the ring light into the lens."""
STRIP = 64
"""Rows that are lit at a time, so that they fit the processor's cache."""


@dataclass(frozen=True)
class Light:
    """A coaxial light through the lens, a ring light around it, and the light of the room."""

    coaxial: float
    ring: float
    room: float
    tilt: tuple[float, float]
    """Slope (x, y) of the facets that throw the coaxial light back at the centre of the field."""
    divergence: float
    """By how much that slope grows from the centre of the field to its edge."""
    azimuth: float
    """Direction of the stronger side of the ring."""
    imbalance: float
    gradient: np.ndarray
    hot_spots: list[tuple[np.ndarray, float, float]]
    """Centre, radius (in halves of the canvas) and strength of each."""
    shadow: np.ndarray
    """Offset (x, y) of the shadows of the wires."""


@dataclass(frozen=True)
class Camera:
    """The pose of the device under the lens, and the sensor."""

    shift: np.ndarray
    rotation: float
    zoom: float
    blur: float
    white: float
    """Grey level to which the exposure brings the 97th percentile."""
    black: float
    gamma: float
    shot_noise: float
    read_noise: float


def draw_light(rng: np.random.Generator) -> Light:
    """Draw an illumination, from mostly coaxial to mostly ring."""
    balance = rng.uniform(0.1, 0.9)
    azimuth = rng.uniform(0, 2 * np.pi)
    direction = np.array([np.cos(azimuth), np.sin(azimuth)])
    return Light(
        coaxial=balance * rng.uniform(0.8, 1.2),
        ring=(1 - balance) * rng.uniform(1.0, 1.6),
        room=rng.uniform(0.35, 0.9),
        tilt=(rng.normal(0, 0.06), rng.normal(0, 0.06)),
        divergence=rng.uniform(-0.12, 0.2),
        azimuth=azimuth,
        imbalance=rng.uniform(0, 0.7),
        gradient=rng.uniform(-0.28, 0.28, 2),
        hot_spots=[
            (rng.uniform(-0.9, 0.9, 2), rng.uniform(0.12, 0.4), rng.uniform(0.2, 0.9))
            for _ in range(rng.integers(0, 3))
        ],
        shadow=-direction * rng.uniform(2, 6),
    )


def draw_camera(rng: np.random.Generator) -> Camera:
    """Draw a pose and the settings of the sensor."""
    return Camera(
        shift=rng.uniform(-5, 5, 2),
        rotation=np.deg2rad(rng.uniform(-4, 4)),
        zoom=rng.uniform(0.98, 1.02),
        blur=rng.uniform(0.3, 1.0),
        white=rng.uniform(150, 262),
        black=rng.uniform(2, 22),
        gamma=rng.uniform(0.75, 1.25),
        shot_noise=rng.uniform(0.1, 0.3),
        read_noise=rng.uniform(0.8, 2.5),
    )


def illuminate(surface: Surface, light: Light) -> np.ndarray:
    """Return the radiance (H W, float32) of a device under `light`."""
    side = len(surface.label)
    radiance = _falloff(light, side) * _shadow(surface, light)
    place = np.linspace(-1, 1, side, dtype=np.float32)
    for top in range(0, side, STRIP):
        rows = slice(top, top + STRIP)
        radiance[rows] *= _reflect(surface.strip(rows), light, place[None, :], place[rows, None])
    return radiance


def _reflect(surface: Surface, light: Light, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return what a surface reflects (H W): two lobes of gloss and a dull part.

    `x` and `y` are its places in the field, -1 to 1.
    """
    tilt_x, tilt_y = light.tilt
    away_x = surface.slope_x - (tilt_x + light.divergence * x)
    away_y = surface.slope_y - (tilt_y + light.divergence * y)
    lobe = -0.5 / np.square(surface.spread)
    coaxial = np.exp((np.square(away_x) + np.square(away_y)) * lobe)

    # Not cv2.magnitude, which rounds as the arrays happen to lie in memory.
    steepness = np.sqrt(np.square(surface.slope_x) + np.square(surface.slope_y))
    downhill = surface.slope_x * math.cos(light.azimuth) + surface.slope_y * math.sin(light.azimuth)
    sided = 1 + light.imbalance * downhill / (steepness + 0.05)
    ring = sided * np.exp(np.square(steepness - RING_SLOPE) * lobe * 0.6)

    dull = surface.diffuse / np.sqrt(1 + np.square(steepness))
    return surface.gloss * (light.coaxial * coaxial + light.ring * ring) + light.room * dull


def _falloff(light: Light, side: int) -> np.ndarray:
    """Return the unevenness (side side) of the illumination over the canvas."""
    place = np.linspace(-1, 1, 48, dtype=np.float32)
    x, y = place[None, :], place[:, None]
    field = 1 + light.gradient[0] * x + light.gradient[1] * y - 0.12 * (x**2 + y**2)
    for (a, b), radius, strength in light.hot_spots:
        field += strength * np.exp(-((x - a) ** 2 + (y - b) ** 2) / radius**2)
    return cv2.resize(field.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)


def _shadow(surface: Surface, light: Light) -> np.ndarray:
    """Return what the shadows of the wires leave of the light (H W)."""
    move = np.column_stack([np.eye(2), light.shadow * surface.scale])
    cast = cv2.warpAffine(surface.raised, move, surface.shape[::-1])
    softness = 1 + 2 * round(surface.scale)
    return 1 - 0.5 * cv2.blur(cast, (softness, softness)) * (1 - surface.raised)


def photograph(
    radiance: np.ndarray, labels: np.ndarray, camera: Camera, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the image and the mask (both size size, uint8) of a lit canvas.

    The image is the mean over each pixel's area; the mask is the label of the canvas point nearest
    to its middle.
    """
    fine = size * SUPERSAMPLING
    view = cv2.warpAffine(
        radiance,
        _pose(camera, fine, 1),
        (fine, fine),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
    )
    view = cv2.resize(view, (size, size), interpolation=cv2.INTER_AREA)
    mask = cv2.warpAffine(
        labels,
        _pose(camera, fine, SUPERSAMPLING),
        (size, size),
        flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
    )
    return _expose(view, camera, rng), mask


def _pose(camera: Camera, fine: int, step: int) -> np.ndarray:
    """Return the map (2 3) from the pixels of a view, `step` canvas points each, to the canvas."""
    scale = fine / FIELD
    cos, sin = np.cos(camera.rotation) / camera.zoom, np.sin(camera.rotation) / camera.zoom
    turn = np.array([[cos, -sin], [sin, cos]])
    origin = (FIELD / 2 + MARGIN + camera.shift - turn @ np.full(2, FIELD / 2)) * scale - 0.5
    return np.column_stack([turn * step, origin + turn @ np.full(2, step / 2)])


def _expose(view: np.ndarray, camera: Camera, rng: np.random.Generator) -> np.ndarray:
    """Return the image (H W uint8) that the sensor makes of the light on it."""
    view = cv2.GaussianBlur(view, (0, 0), camera.blur)
    level = (view / np.percentile(view, 97)) ** camera.gamma
    grey = camera.black + (camera.white - camera.black) * level
    sigma = np.sqrt(camera.read_noise**2 + camera.shot_noise**2 * grey)
    grey += sigma * rng.standard_normal(grey.shape, dtype=np.float32)
    return np.clip(np.round(grey), 0, 255).astype(np.uint8)
