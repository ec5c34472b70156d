"""Where the parts of a wire-bonded device lie: die, bond pads, lead frame, wires, bonds, epoxy.

Lengths are in units of which the field of view holds `FIELD`, with the origin at its centre.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

FIELD = 256.0
CURVE_POINTS = 80

Vector = np.ndarray
"""A point or direction, shape (2,): x to the right, y down."""


class Rectangle(NamedTuple):
    """An upright rectangle."""

    centre: Vector
    half: Vector


class Wire(NamedTuple):
    """A wire seen from above: points along its axis (N 2), slope of its height along it (N)."""

    path: np.ndarray
    climb: np.ndarray
    radius: float


class Ball(NamedTuple):
    """The squashed ball where a wire starts; `neck` is the radius of the wire's root on it."""

    centre: Vector
    radius: float
    neck: float


class Wedge(NamedTuple):
    """The flattened end of a wire, `length` along `angle` and `width` across."""

    centre: Vector
    angle: float
    length: float
    width: float
    wire_radius: float


class Blob(NamedTuple):
    """Bled die-attach epoxy: an ellipse whose outline is made uneven when it is painted."""

    centre: Vector
    radii: Vector
    angle: float


@dataclass(frozen=True)
class Layout:
    """One device."""

    die: Rectangle
    paddle: Rectangle
    pads: list[Rectangle] = field(default_factory=list)
    leads: list[np.ndarray] = field(default_factory=list)
    """Outlines (4 2) of the stamped fingers: the two corners of the tip, then the two outside."""
    wires: list[Wire] = field(default_factory=list)
    balls: list[Ball] = field(default_factory=list)
    wedges: list[Wedge] = field(default_factory=list)
    creep: list[Blob] = field(default_factory=list)
    """Epoxy that has crept out from under the die."""
    drops: list[Blob] = field(default_factory=list)
    """Epoxy that has dropped on the die and the leads, not where a bond would hide it."""


class Slot(NamedTuple):
    """A bond pad and the lead across from it: a place for a wire."""

    pad: Vector
    lead: Vector
    outward: Vector


def draw_layout(rng: np.random.Generator, epoxy: bool) -> Layout:
    """Draw a device: 5 to 9 wires; epoxy bleed where `epoxy` says so."""
    die = Rectangle(rng.uniform(-4, 4, 2), rng.uniform(47, 58, 2))
    layout = Layout(die, Rectangle(die.centre, die.half + rng.uniform(10, 16)))
    if rng.random() < 0.5:
        _draw_tie_bars(rng, layout)
    slots = _draw_slots(rng, layout)
    _draw_wires(rng, layout, slots)
    if epoxy:
        _draw_epoxy(rng, layout)
    return layout


def _direction(angle: float) -> Vector:
    return np.array([np.cos(angle), np.sin(angle)])


def _strip(start: Vector, end: Vector, half: float, across: Vector) -> np.ndarray:
    """Return the outline (4 2) of a finger of metal from `start` to `end`."""
    side = half * across
    return np.array([start - side, start + side, end + side, end - side])


def _draw_tie_bars(rng: np.random.Generator, layout: Layout) -> None:
    """Hold the paddle at its corners."""
    half = rng.uniform(2.5, 4.5)
    for sign in np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]):
        corner = layout.paddle.centre + sign * (layout.paddle.half - half)
        across = np.array([-sign[1], sign[0]]) / np.sqrt(2)
        layout.leads.append(_strip(corner, corner + 120 * sign, half, across))


def _draw_slots(rng: np.random.Generator, layout: Layout) -> list[Slot]:
    """Place bond pads along the die's sides and a lead across from each; some leads have no pad."""
    pad_half, inset = rng.uniform(7.6, 8.8), rng.uniform(11, 13)
    pad_pitch, lead_pitch = rng.uniform(20, 25), rng.uniform(25, 31)
    lead_half, gap, fan = rng.uniform(8, 9.5), rng.uniform(6, 11), rng.uniform(1.0, 1.45)
    bare_side = rng.integers(8)
    slots: list[Slot] = []
    for side in range(4):
        outward = np.round(_direction(side * np.pi / 2))
        along = np.array([-outward[1], outward[0]])
        reach, width = np.abs(layout.die.half @ outward), np.abs(layout.die.half @ along)
        edge = float(np.abs(layout.paddle.half @ outward))
        if side == bare_side:
            root = layout.die.centre + (edge - 2) * outward
            layout.leads.append(_strip(root, root + 120 * outward, rng.uniform(6, 14), along))
            continue
        room = width - inset - 2 * pad_half - 1
        count = min(int(2 * room // pad_pitch) + 1, 4)
        skew = rng.uniform(-3, 3)
        for step in np.arange(-1, count + 1) - (count - 1) / 2:
            at = step * lead_pitch + skew
            tip = layout.die.centre + at * along + (edge + gap) * outward
            end = layout.die.centre + fan * at * along + 180 * outward
            padded = abs(step) <= (count - 1) / 2
            if not padded and (abs(at) + lead_half > width + 6 or rng.random() < 0.25):
                continue
            layout.leads.append(_strip(tip, end, lead_half, along))
            if padded:
                pad = layout.die.centre + step * pad_pitch * along + (reach - inset) * outward
                layout.pads.append(Rectangle(pad, np.full(2, pad_half)))
                slots.append(Slot(pad, tip, outward))
    return slots


def _draw_wires(rng: np.random.Generator, layout: Layout, slots: list[Slot]) -> None:
    """Bond a share of the slots: a ball on the pad, a loop, a wedge on the lead."""
    radius, ball_radius = rng.uniform(1.8, 2.5), rng.uniform(5.8, 7.6)
    length, width = rng.uniform(13, 16), rng.uniform(7.6, 9.2)
    bend, height = rng.uniform(1, 9), rng.uniform(0.35, 0.9)
    count = min(len(slots), int(rng.integers(5, 10)))
    for index in sorted(rng.choice(len(slots), count, replace=False)):
        slot = slots[index]
        across = np.array([-slot.outward[1], slot.outward[0]])
        start = slot.pad + rng.uniform(-1.2, 1.2, 2)
        end = slot.lead + slot.outward * rng.uniform(8.5, 13) + across * rng.uniform(-2, 2)
        path = _curve(start, end, rng.normal(0, bend, 2))
        arriving = np.arctan2(*(path[-1] - path[-5])[::-1])
        layout.wires.append(Wire(path, _climb(rng, height), radius))
        layout.balls.append(Ball(start, ball_radius * rng.uniform(0.92, 1.06), radius * 1.25))
        stretch = rng.uniform(0.9, 1.1)
        layout.wedges.append(Wedge(end, arriving, length * stretch, width / stretch, radius))


def _curve(start: Vector, end: Vector, bulge: Vector) -> np.ndarray:
    """Return points (N 2) of the cubic Bézier curve whose controls are pushed aside by `bulge`."""
    chord = end - start
    normal = np.array([-chord[1], chord[0]]) / np.linalg.norm(chord)
    controls = [
        start,
        start + 0.3 * chord + bulge[0] * normal,
        start + 0.72 * chord + bulge[1] * normal,
        end,
    ]
    t = np.linspace(0, 1, CURVE_POINTS)[:, None]
    weights = [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3]
    return np.sum([w * c for w, c in zip(weights, controls, strict=True)], axis=0)


def _climb(rng: np.random.Generator, height: float) -> np.ndarray:
    """Return the slope (N) of a loop that rises at once from the ball and sinks slowly."""
    t = np.linspace(0, 1, CURVE_POINTS)
    crest = rng.uniform(0.25, 0.45)
    return height * np.where(
        t < crest, 1.6 * (1 - t / crest), -np.sin((t - crest) / (1 - crest) * 2.4)
    )


def _draw_epoxy(rng: np.random.Generator, layout: Layout) -> None:
    """Let epoxy creep out from under the die's edge, and drop it beside the bonds."""
    for _ in range(rng.integers(1, 4)):
        outward = np.round(_direction(rng.integers(4) * np.pi / 2))
        along = np.abs(outward[::-1])
        reach, width = np.abs(layout.die.half @ outward), layout.die.half @ along
        centre = layout.die.centre + outward * (reach + 1) + along * rng.uniform(-0.7, 0.7) * width
        radii = along * rng.uniform(16, 32) + np.abs(outward) * rng.uniform(13, 18)
        layout.creep.append(Blob(centre, radii, angle=0))
    for _ in range(rng.integers(1, 6)):
        if rng.random() < 0.5:
            centre = layout.die.centre + rng.uniform(-0.8, 0.8, 2) * layout.die.half
        else:
            lead = layout.leads[rng.integers(len(layout.leads))]
            inner, outer = lead[:2].mean(axis=0), lead[2:].mean(axis=0)
            centre = inner + rng.uniform(0.05, 0.25) * (outer - inner)
        radii = rng.uniform(7, 11.5) * np.array([1, rng.uniform(0.75, 1)])
        bonds = [ball.centre for ball in layout.balls] + [wedge.centre for wedge in layout.wedges]
        if np.linalg.norm(centre - bonds, axis=1).min() > 9:
            layout.drops.append(Blob(centre, radii, rng.uniform(0, np.pi)))
