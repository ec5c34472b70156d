"""The loader against the training step: `python -m benchmarks.loader [--data FOLDER]`.

Images a second of each alone, and of the training with both, with the share of the time it waits for
data. Without a folder it cuts crops from the rendered default images, as PNG and as JPEG files.
"""

import argparse
import json
import math
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from benchmarks.command import create_parser, report, run
from benchmarks.training_step import add_arguments, pretraining, step_params, stepper, with_update
from benchmarks.turns import add_rounds, kept_file, take_turns
from dbp_mae.data.batches import load
from dbp_mae.data.crops import CropBatches
from dbp_mae.data.images import MEMORY_BUDGET, DecodedImages
from dbp_mae.data.source import IMAGE_SUFFIXES
from dbp_mae.data.wirebond import render_dataset
from dbp_mae.errors import UserError
from dbp_mae.files import write_text
from dbp_mae.params import PretrainParams, load_params
from dbp_mae.training.checkpoint import Checkpoint

ENOUGH = 1.1
"""A loader this many times as fast as the step alone is not the bottleneck."""


def rendered(folder: Path) -> dict[str, Path]:
    """Render the default images; return the folders of PNG and of JPEG files."""
    params = load_params().render
    render_dataset(folder / "rendered", params.model_copy(update={"devices": 16}))
    png, jpeg = folder / "rendered" / "images", folder / "jpeg"
    jpeg.mkdir()
    for path in png.glob("*.png"):
        Image.open(path).save(jpeg / f"{path.stem}.jpg", quality=90)
    return {"rendered PNG": png, "rendered JPEG": jpeg}


def open_images(folder: Path, channels: int, keep: bool) -> DecodedImages:
    """Return the images below a folder, decoded images kept in memory or decoded at each use.

    Raises:
        UserError: there is none.
    """
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise UserError(f"{folder} holds no image: PNG, JPEG, TIFF and BMP files are read.")
    data = load_params().data.model_copy(update={"source": folder, "channels": channels})
    frame = pd.DataFrame({"path": [path.relative_to(folder).as_posix() for path in paths]})
    return DecodedImages(frame, data, budget=MEMORY_BUDGET if keep else 0)


def loading_rate(batches: CropBatches, params: PretrainParams) -> float:
    """Return the images a second that the loader gives when nothing else runs, once it is warm."""
    first = max(2, 3 * params.workers)  # each worker has loaded two before the first is taken
    loader = load(batches, range(first + params.steps), params.workers)
    for _ in range(first):
        next(loader)
    start = time.perf_counter()
    count = sum(1 for _ in loader)
    return count * params.batch / (time.perf_counter() - start)


def training(batches: CropBatches, params: PretrainParams, channels: int) -> dict[str, float]:
    """Train; return images a second and the share of waiting in the second half of the steps.

    Each worker has loaded two batches before the first step: to tell anything, the steps must be many more.
    """
    run = pretraining(params, channels)
    with tempfile.TemporaryDirectory() as folder:
        run.run(batches, Checkpoint(Path(folder)))
    last = run.rows[-1]
    return {"training": last["images_per_second"], "waiting": last["data_wait_share"]}


def measure(
    name: str, folder: Path, workers: int, keep: bool, step: float, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Return the figures of one way to load, `step` being images a second of the step alone."""
    params = settings(arguments, workers)
    shown = {"images": name, "keep": keep, "render": load_params().render.model_dump()}
    kept = kept_file("loader", {**key(params, arguments), **shown, "step": step})
    if kept.exists():
        row: dict[str, Any] = json.loads(kept.read_text())
        return row
    images = open_images(folder, arguments.channels, keep)
    loading = loading_rate(CropBatches(images, params, seed=0), params)
    images = open_images(folder, arguments.channels, keep)
    together = training(CropBatches(images, params, seed=0), params, arguments.channels)
    row = {
        "images": name,
        "workers": workers,
        "decoded": "once" if keep else "at each use",
        "loader": loading,
        "step": step,
        **together,
        "bottleneck": bottleneck(loading, step, workers),
    }
    write_text(kept, json.dumps(row))
    return row


def bottleneck(loading: float, step: float, workers: int) -> str:
    """Say what holds the training up; without workers the two take turns, and both do."""
    if workers == 0:
        return "both, in turns"
    return "step" if loading > ENOUGH * step else "loader"


def settings(arguments: argparse.Namespace, workers: int) -> PretrainParams:
    """Return the settings of a training of as many steps as there are rounds."""
    params = step_params(
        arguments,
        model=arguments.model,
        crops_per_image=arguments.crops_per_image,
        workers=workers,
        steps=arguments.rounds,
        validate_every=math.ceil(arguments.rounds / 2),
        checkpoint_every=arguments.rounds,
    )
    return with_update(params, "none")


def key(params: PretrainParams, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what tells one measurement from others."""
    return {**params.model_dump(), "channels": arguments.channels}


def main() -> None:
    """Measure, print the table and write the results."""
    parser = create_parser(__doc__)
    add_arguments(parser)
    add_rounds(parser)
    parser.add_argument("--model", default="small", help="as pretrain.model")
    parser.add_argument("--data", type=Path, help="a folder of images, in place of rendered ones")
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[0, 2, 8], help="processes that load"
    )
    parser.add_argument(
        "--crops-per-image", type=int, default=4, help="of a batch that share an image"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        given = arguments.data
        folders = {str(given): given} if given else rendered(Path(temporary))
        params = settings(arguments, 0)
        times = take_turns(
            "loader",
            key(params, arguments),
            lambda: {"step": stepper(params, arguments.channels)},
            arguments.rounds,
            arguments.warmup,
        )
        step = params.batch / float(times["step"].median())
        rows: list[dict[str, Any]] = []
        for (name, folder), workers, keep in product(
            folders.items(), arguments.workers, (True, False)
        ):
            rows.append(measure(name, folder, workers, keep, step, arguments))
            report("loader", headline(rows), rows)


def headline(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the share of waiting by way to load."""
    return {
        f"waiting, {row['images']}, {row['workers']} workers, decoded {row['decoded']}": round(
            row["waiting"], 3
        )
        for row in rows
    }


if __name__ == "__main__":
    run(main)
