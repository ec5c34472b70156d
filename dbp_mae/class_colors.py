"""The colours of the classes, the same in the service, the report and the overlays."""

import colorsys

COLORS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#999999")
"""Told apart by the colour-blind too (Okabe and Ito, 2008)."""
GOLDEN = (5**0.5 - 1) / 2
"""Of a turn around the hues: its multiples spread evenly."""


def class_color(index: int) -> str:
    """Return the colour of a class, counted from 0, that no other has: #rrggbb."""
    if index < len(COLORS):
        return COLORS[index]
    lightness = (0.35, 0.5, 0.65)[index % 3]
    color = colorsys.hls_to_rgb(index * GOLDEN % 1, lightness, 0.75)
    return "#" + "".join(f"{round(255 * part):02x}" for part in color)
