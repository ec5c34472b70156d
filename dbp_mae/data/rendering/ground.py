"""What carries no label: the carrier, the lead frame, the die, dirt."""

import cv2
import numpy as np

from dbp_mae.data.rendering.layout import FIELD, Layout, Rectangle
from dbp_mae.data.rendering.surface import (
    Label,
    Material,
    Slopes,
    Surface,
    Window,
    local,
    noise,
    slopes_of,
    turned,
)


def paint_carrier(surface: Surface, rng: np.random.Generator) -> None:
    """Cover the canvas with what is seen between the metal: tape, or a dull heater block."""
    shape, scale = surface.shape, surface.scale
    tone = 1 + 0.12 * noise(rng, shape, 7 * scale) + 0.1 * noise(rng, shape, scale / 3)
    slope = 0.1 * noise(rng, shape, 2 * scale)
    material = Material(rng.uniform(0.06, 0.4) * tone, rng.uniform(0, 0.25), 0.25)
    surface.paint(surface.whole(), np.ones(shape, np.float32), material, (slope, slope[::-1]))


def paint_frame(surface: Surface, layout: Layout, rng: np.random.Generator) -> None:
    """Paint the lead frame: rolled metal, stained, plated near the die, its edges rounded."""
    shape, scale, everywhere = surface.shape, surface.scale, surface.whole()
    metal = np.zeros(shape, np.uint8)
    cv2.fillPoly(metal, [surface.points(outline) for outline in layout.leads], 1)
    cover = np.maximum(metal, _box(everywhere, layout.paddle)).astype(np.float32)

    rounding = rng.uniform(0.5, 1.1)
    height = rounding * rng.uniform(1.2, 2.4) * cv2.GaussianBlur(cover, (0, 0), rounding * scale)
    edge_x, edge_y = slopes_of(height, scale)
    streaks, (grain_x, grain_y) = _rolled(rng, shape, scale)
    warp = 0.05 * noise(rng, shape, 48 * scale)
    slopes = edge_x + grain_x + warp, edge_y + grain_y + warp[::-1]

    stains = np.clip(noise(rng, shape, 32 * scale) - 0.9, 0, 1)
    plated = _box(everywhere, layout.paddle, grow=rng.uniform(22, 40))
    tone = (1 + rng.uniform(0.05, 0.15) * streaks) * (1 - 0.35 * stains)
    tone *= np.where(plated, 1, rng.uniform(0.7, 1.1))
    material = Material(
        rng.uniform(0.14, 0.36) * tone, rng.uniform(0.45, 0.95) * tone, rng.uniform(0.12, 0.25)
    )
    surface.darken(everywhere, 1 - 0.6 * cv2.GaussianBlur(cover, (0, 0), 2.5 * scale))
    surface.paint(everywhere, cover, material, slopes)


def _rolled(
    rng: np.random.Generator, shape: tuple[int, int], scale: float
) -> tuple[np.ndarray, Slopes]:
    """Return the streaks of rolled metal, as unit noise (H W) and as slopes."""
    streaks = (
        0.7 * noise(rng, shape, 0.7 * scale, stretch=145)
        + 0.6 * noise(rng, shape, scale, stretch=24)
        + 0.4 * noise(rng, shape, 3 * scale, stretch=2.5)
    )
    roughness = rng.uniform(0.03, 0.12)
    slopes = roughness * streaks, 0.3 * roughness * streaks
    if rng.random() < 0.5:
        return streaks, slopes
    return streaks.T, (slopes[1].T, slopes[0].T)


def paint_die(surface: Surface, layout: Layout, rng: np.random.Generator) -> None:
    """Paint the die: its circuit, the seal ring and the sawn street around it, the bond pads."""
    scale, (centre, half) = surface.scale, layout.die
    around = surface.window(centre - half - 9, centre + half + 9)
    cover = _box(around, layout.die).astype(np.float32)
    surface.darken(around, 1 - 0.75 * cv2.GaussianBlur(cover, (0, 0), 2.2 * scale))

    window = surface.window(centre - half, centre + half)
    from_edge = np.minimum(
        half[0] - np.abs(window.x - centre[0]), half[1] - np.abs(window.y - centre[1])
    )
    relief = _relief(from_edge, scale, rng)
    tone = np.clip(1 + rng.uniform(0.1, 0.3) * relief, 0.1, 2)
    material = Material(
        rng.uniform(0.08, 0.35) * tone, rng.uniform(0.2, 0.9) * tone, rng.uniform(0.07, 0.2)
    )
    slopes = slopes_of(rng.uniform(0.03, 0.12) * relief, scale)
    surface.paint(window, np.ones(window.shape), material, slopes, Label.BACKGROUND)

    aluminium = Material(rng.uniform(0.2, 0.4), rng.uniform(0.4, 0.9), rng.uniform(0.1, 0.22))
    for pad in layout.pads:
        _paint_pad(surface, pad, aluminium, rng)


def _relief(from_edge: np.ndarray, scale: float, rng: np.random.Generator) -> np.ndarray:
    """Return the relief (H W) of a die, about -1 to 1, given each point's distance from its edge."""
    relief = _circuit(rng, from_edge.shape, scale)
    street, ring = rng.uniform(3, 5), rng.uniform(0.5, 0.9)
    relief[from_edge < street] = rng.uniform(-0.6, 0.6)
    relief[np.abs(from_edge - street) < ring] = rng.uniform(0.5, 1.5)
    chipped = from_edge < 1
    relief[chipped] += 0.8 * rng.standard_normal(chipped.sum(), dtype=np.float32)
    return cv2.GaussianBlur(relief, (0, 0), 0.25 * scale)


def _circuit(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> np.ndarray:
    """Return relief (H W) of blocks of logic, memory and bus lines."""
    relief = np.full(shape, rng.uniform(-0.5, 0.5), np.float32)
    areas = [relief]
    while areas:
        area = areas.pop()
        longest = max(area.shape) / scale
        if longest > 50 or (longest > 16 and rng.random() < 0.75):
            axis = int(np.argmax(area.shape))
            areas += np.split(area, [int(rng.uniform(0.3, 0.7) * area.shape[axis])], axis)
            continue
        gap = max(1, round(rng.uniform(0.3, 1.0) * scale))
        if min(area.shape) > 2 * gap + 2 * scale:
            block = area[gap:-gap, gap:-gap]
            block[:] = _block(rng, block.shape, scale)
    return relief


def _block(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> np.ndarray:
    """Return the relief (H W) of one block of the circuit."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    pitch = rng.uniform(1.5, 4.5) * scale
    across, down = rows % pitch < pitch / 2, columns % pitch < pitch / 2
    kind = rng.choice(["plain", "bus", "memory", "logic"], p=[0.3, 0.25, 0.2, 0.25])
    pattern: np.ndarray
    if kind == "plain":
        pattern = np.zeros(shape)
    elif kind == "bus":
        pattern = np.broadcast_to(across if rng.random() < 0.5 else down, shape)
    elif kind == "memory":
        pattern = across ^ (columns % (0.6 * pitch) < 0.3 * pitch)
    else:
        cells = rng.uniform(-1, 1, [max(1, int(n / scale / 1.3)) for n in shape])
        pattern = cv2.resize(cells, shape[::-1], interpolation=cv2.INTER_NEAREST)
    return rng.uniform(-1, 1) + rng.uniform(0.3, 1) * pattern


def _paint_pad(
    surface: Surface, pad: Rectangle, aluminium: Material, rng: np.random.Generator
) -> None:
    """Paint a bond pad in its frame of passivation, scratched by the test probe."""
    window = surface.around(pad.centre, float(pad.half[0]) + 1.5)
    surface.darken(window, np.where(_box(window, pad, grow=0.8), 0.45, 1))
    cover = _box(window, pad).astype(np.float32)
    height = 0.4 * cv2.GaussianBlur(cover, (0, 0), 0.4 * surface.scale)
    u, v = local(window, pad.centre + rng.uniform(-0.5, 0.5, 2) * pad.half, rng.uniform(0, np.pi))
    height += 0.6 * np.exp(-((u / 2.2) ** 2) - (v / 0.9) ** 2)
    slope_x, slope_y = slopes_of(height, surface.scale)
    grain = rng.normal(0, 0.06, (2, *window.shape))
    surface.paint(window, cover, aluminium, (slope_x + grain[0], slope_y + grain[1]))


def _box(window: Window, rectangle: Rectangle, grow: float = 0) -> np.ndarray:
    """Return where a window lies inside a rectangle widened by `grow` (H W bool)."""
    (x, y), (half_x, half_y) = rectangle.centre, rectangle.half + grow
    return (np.abs(window.x - x) < half_x) & (np.abs(window.y - y) < half_y)


def paint_dirt(surface: Surface, rng: np.random.Generator) -> None:
    """Strew what is no defect: dust, faint stains, scratches and fibres."""
    for _ in range(rng.integers(8, 40)):
        _paint_dust(surface, rng)
    for _ in range(rng.integers(0, 4)):
        centre = rng.uniform(-FIELD / 2, FIELD / 2, 2)
        window = surface.around(centre, 22)
        u, v = local(window, centre, rng.uniform(0, np.pi))
        stain = np.clip(1.4 - (u / 15) ** 2 - (v / 11) ** 2, 0, 1)
        surface.darken(window, 1 - rng.uniform(-0.2, 0.3) * stain)
    for _ in range(rng.integers(2, 9)):
        _paint_thread(surface, rng)


def _paint_dust(surface: Surface, rng: np.random.Generator) -> None:
    """Paint a speck of dust."""
    centre, radius = rng.uniform(-FIELD / 2, FIELD / 2, 2), rng.uniform(0.4, 1.8)
    window = surface.around(centre, 2.5)
    u, v = local(window, centre, rng.uniform(0, np.pi))
    cover = u**2 + (v / rng.uniform(0.5, 1)) ** 2 < radius**2
    dust = Material(rng.uniform(0.02, 0.7), rng.uniform(0, 0.6), 0.5)
    surface.paint(window, cover, dust, (0.2 * u, 0.2 * v))


def _paint_thread(surface: Surface, rng: np.random.Generator) -> None:
    """Paint a straight scratch or a bent fibre."""
    fibre = rng.random() < 0.3
    u = rng.uniform(5, 32) * np.linspace(-1, 1, 24)
    bend = rng.uniform(2, 10) if fibre else 0
    thread = np.stack(turned(u, bend * np.linspace(-1, 1, 24) ** 2, rng.uniform(0, np.pi)), axis=1)
    points = [surface.points(rng.uniform(-FIELD / 2, FIELD / 2, 2) + thread)]
    width = max(1, round(rng.uniform(0.3, 1.0) * surface.scale))
    if fibre:
        cv2.polylines(surface.diffuse, points, False, rng.uniform(0.02, 0.6), width)
        cv2.polylines(surface.gloss, points, False, 0.1, width)
    else:
        cv2.polylines(surface.slope_x, points, False, rng.uniform(-0.5, 0.5), width)
