"""What carries a label: epoxy, balls, wires, wedges."""

import cv2
import numpy as np

from dbp_mae.data.rendering.layout import Ball, Blob, Wedge, Wire
from dbp_mae.data.rendering.surface import Label, Material, Surface, local, noise, slopes_of, turned


def paint_blob(surface: Surface, blob: Blob, rng: np.random.Generator) -> None:
    """Paint epoxy: a dome with an uneven smooth outline through which the ground shimmers."""
    window = surface.around(blob.centre, 1.5 * float(blob.radii.max()))
    scale, shape = surface.scale, window.shape
    u, v = local(window, blob.centre, blob.angle)
    unevenness = cv2.GaussianBlur(noise(rng, shape, 11 * scale), (0, 0), 2 * scale)
    level = (u / blob.radii[0]) ** 2 + (v / blob.radii[1]) ** 2 + 0.28 * unevenness
    inside = np.clip(1 - level, 0, 1)
    slope_x, slope_y = slopes_of(rng.uniform(2.0, 3.5) * np.sqrt(inside + 0.02), scale)
    grain = rng.uniform(0.05, 0.2) * noise(rng, shape, scale)
    opacity = np.where(level < 1, rng.uniform(0.78, 0.9) + 0.1 * inside, 0)
    surface.darken(window, 1 - 0.55 * np.exp(-(((np.clip(level, 1, None) - 1) / 0.25) ** 2)))
    surface.paint(window, opacity, _epoxy(rng), (slope_x + grain, slope_y - grain), Label.EPOXY)


def _epoxy(rng: np.random.Generator) -> Material:
    """Return die-attach epoxy: dark where the resin has run ahead of its silver filler, or bright."""
    if rng.random() < 0.5:
        return Material(rng.uniform(0.02, 0.08), rng.uniform(0.1, 0.3), rng.uniform(0.1, 0.2))
    return Material(rng.uniform(0.5, 0.85), rng.uniform(0.2, 0.6), rng.uniform(0.15, 0.3))


def paint_ball(surface: Surface, ball: Ball, gold: Material, rng: np.random.Generator) -> None:
    """Paint a ball bond: a flat ring around the neck, its rim falling off to the pad."""
    window = surface.around(ball.centre, ball.radius + 3)
    u, v = local(window, ball.centre, 0)
    distance = np.hypot(u, v) + 1e-6
    surface.darken(window, 1 - 0.55 * np.exp(-np.clip(distance - ball.radius, 0, None)))
    rim = np.clip((distance / ball.radius - 0.62) / 0.38, 0, 0.97)
    cone = np.exp(-(((distance - ball.neck - 0.6) / 1.1) ** 2))
    fall = -(rim / np.sqrt(1 - rim**2)) - rng.uniform(0.7, 1.4) * cone
    fall += 0.07 * noise(rng, window.shape, surface.scale)
    slopes = fall * u / distance, fall * v / distance
    surface.paint(window, distance <= ball.radius, gold, slopes, Label.BALL)


def paint_wire(surface: Surface, wire: Wire, gold: Material) -> None:
    """Paint a wire, a cylinder along its path; where it lies on a ball, the label stays the ball's."""
    low, high = wire.path.min(axis=0) - wire.radius, wire.path.max(axis=0) + wire.radius
    window = surface.window(low, high)
    axis = np.zeros(window.shape, np.uint8)
    start = (window.columns.start, window.rows.start)
    width = 2 * int(np.ceil(wire.radius * surface.scale)) + 3
    cv2.polylines(axis, [surface.points(wire.path) - start], False, 1, width)
    rows, columns = np.nonzero(axis)
    points = np.stack([window.x[0, columns], window.y[rows, 0]], axis=1)

    path = wire.path.astype(np.float32)
    nearest = (np.square(path).sum(axis=1) - 2 * points @ path.T).argmin(axis=1)
    offset = points - path[nearest]
    on_wire = np.square(offset).sum(axis=1) <= wire.radius**2
    rows, columns, nearest, offset = (a[on_wire] for a in (rows, columns, nearest, offset))
    tangent = np.gradient(path, axis=0)
    along = (tangent / np.linalg.norm(tangent, axis=1, keepdims=True))[nearest]
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    side = np.clip(np.sum(across * offset, axis=1) / wire.radius, -0.97, 0.97)
    fall = -side / np.sqrt(1 - side**2)
    slope = wire.climb[nearest, None] * along + fall[:, None] * across

    area = rows + window.rows.start, columns + window.columns.start
    surface.diffuse[area], surface.gloss[area], surface.spread[area] = gold
    surface.slope_x[area], surface.slope_y[area] = slope.T
    surface.raised[area] = np.sin(np.pi * nearest / len(path))
    surface.label[area] = np.where(surface.label[area] == Label.BALL, Label.BALL, Label.WIRE)


def paint_wedge(surface: Surface, wedge: Wedge, gold: Material, rng: np.random.Generator) -> None:
    """Paint a wedge bond: the wire pressed flat and wide, with the print of the capillary."""
    window = surface.around(wedge.centre, 0.75 * wedge.length + 2)
    u, v = local(window, wedge.centre, wedge.angle)
    t = np.clip(u / wedge.length + 0.5, 0, 1)
    swell = np.clip(t / 0.65, 0, 1) ** 1.5
    blunt = np.sqrt(1 - np.clip((t - 0.75) / 0.26, 0, 1) ** 2)
    half = (wedge.wire_radius + (wedge.width / 2 - wedge.wire_radius) * swell) * blunt
    inside = (np.abs(u) <= wedge.length / 2) & (np.abs(v) <= half)
    reach = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), 1.1 * surface.scale)
    surface.darken(window, 1 - 0.55 * reach)

    side = np.clip(np.abs(v) / np.maximum(half, 0.1), 0, 1)
    across = -np.sign(v) * (1.3 - 0.5 * swell) * side**3
    crescent = u - 0.22 * wedge.length + 0.07 * v**2
    along = 1.2 * np.exp(-((crescent / 0.9) ** 2)) - 0.5 * (1 - swell) - 0.12
    along = along + 0.12 * noise(rng, window.shape, surface.scale)
    surface.paint(window, inside, gold, turned(along, across, wedge.angle), Label.WEDGE)
