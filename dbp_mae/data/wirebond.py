"""The embedded default data: rendered images of wire-bonded devices with exact masks.

A device is laid out and painted once; each of its views has its own pose, light, focus and exposure.
"""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from dbp_mae.data.processes import map_in_processes
from dbp_mae.data.rendering.bonds import paint_ball, paint_blob, paint_wedge, paint_wire
from dbp_mae.data.rendering.ground import paint_carrier, paint_die, paint_dirt, paint_frame
from dbp_mae.data.rendering.layout import FIELD, draw_layout
from dbp_mae.data.rendering.optics import (
    SUPERSAMPLING,
    draw_camera,
    draw_light,
    illuminate,
    photograph,
)
from dbp_mae.data.rendering.surface import Material, Surface
from dbp_mae.errors import UserError
from dbp_mae.files import write_text
from dbp_mae.params import RenderParams

AT_ONCE = 4
"""Devices that a process renders before it reports."""


@dataclass(frozen=True)
class Device:
    """What is drawn of a device before it is rendered."""

    group: str
    rng: np.random.Generator
    epoxy: bool
    labelled: bool


def render_dataset(folder: Path, params: RenderParams) -> None:
    """Write images/, masks/ (of the labelled devices) and parts.csv to `folder`.

    Every second device has bled epoxy, among the labelled and among the others. The masks hold
    1 wire, 2 ball, 3 wedge, 4 epoxy. Equal parameters give equal bytes.

    Raises:
        UserError: `folder` already holds images, which might be mixed up with the new ones.
    """
    if (folder / "images").exists():
        raise UserError(f"{folder} already holds images: delete the folder, then render again.")
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir(exist_ok=True)
    rng = np.random.default_rng(params.seed)
    order = rng.permutation(params.devices)
    labelled = order < round(params.labelled_share * params.devices)
    devices = [
        Device(
            f"device_{index + 1:04d}",
            device_rng,
            epoxy=order[index] % 2 == 0,
            labelled=labelled[index],
        )
        for index, device_rng in enumerate(rng.spawn(params.devices))
    ]
    drawn = map_in_processes(_draw, devices, AT_ONCE, folder=folder, params=params)
    parts = [("image", "group", "state")]
    for device, names in zip(
        devices, tqdm(drawn, "render", len(devices), unit="device"), strict=True
    ):
        state = "labelled" if device.labelled else "unlabelled"
        parts += [(name, device.group, state) for name in names]
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows(parts)
    write_text(folder / "parts.csv", table.getvalue())


def _draw(device: Device, folder: Path, params: RenderParams) -> list[str]:
    """Write the images of a device, and its masks if it is labelled; return the images' names."""
    surface = render_device(device.rng, params.size, device.epoxy)
    names = []
    for view, view_rng in enumerate(device.rng.spawn(params.views), start=1):
        image, mask = render_view(surface, view_rng, params.size)
        names.append(f"{device.group}_view_{view}.png")
        Image.fromarray(image).save(folder / "images" / names[-1])
        if device.labelled:
            Image.fromarray(mask).save(folder / "masks" / names[-1])
    return names


def render_device(rng: np.random.Generator, size: int, epoxy: bool) -> Surface:
    """Return a device painted for views of `size` pixels; epoxy has bled where `epoxy` says so."""
    layout = draw_layout(rng, epoxy)
    surface = Surface.blank(size * SUPERSAMPLING / FIELD)
    gold = Material(rng.uniform(0.16, 0.34), rng.uniform(0.6, 1.0), rng.uniform(0.16, 0.3))

    paint_carrier(surface, rng)
    paint_frame(surface, layout, rng)
    for blob in layout.creep:
        paint_blob(surface, blob, rng)
    paint_die(surface, layout, rng)
    paint_dirt(surface, rng)
    for blob in layout.drops:
        paint_blob(surface, blob, rng)
    for ball in layout.balls:
        paint_ball(surface, ball, gold, rng)
    for wire in layout.wires:
        paint_wire(surface, wire, gold)
    for wedge in layout.wedges:
        paint_wedge(surface, wedge, gold, rng)
    return surface


def render_view(
    device: Surface, rng: np.random.Generator, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return an image of a device and its mask (size size, both uint8) in a drawn pose and light."""
    radiance = illuminate(device, draw_light(rng))
    return photograph(radiance, device.label, draw_camera(rng), size, rng)
