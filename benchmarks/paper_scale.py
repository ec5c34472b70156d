"""What a recipe takes, worked out: `python -m benchmarks.paper_scale imagenet10`.

Memory, seconds and watts of a training step are measured here, on random images at two batch sizes,
and so is reading images, and masks for a fine-tuning, on files of ImageNet's usual size; the recipe says
how many of them.
The figures hold for the machine that this runs on and for no other.
"""

import math
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks import command
from benchmarks.results_file import write_results
from benchmarks.training_step import pretraining, random_batch
from benchmarks.turns import synchronize
from dbp_mae import emissions
from dbp_mae.data.batches import Batches
from dbp_mae.data.crops import CropBatches
from dbp_mae.data.images import DecodedImages, DecodedMasks
from dbp_mae.data.ingest import ingest
from dbp_mae.data.manifest import manifest_from_rows
from dbp_mae.data.tiles import LabelledImages, TileBatches, ValidationTiles
from dbp_mae.encoder import EncoderSpec
from dbp_mae.errors import UserError
from dbp_mae.params import DataParams, Params, load_params
from dbp_mae.segmentation.train import Finetuning
from dbp_mae.training.loop import Training, create_fabric
from pipelines.compose import compose

FILES, HEIGHT, WIDTH = 128, 375, 500
GIB = 2**30


@dataclass(frozen=True)
class Cost:
    """What a training costs, measured."""

    images_per_second: float
    fixed_bytes: float
    """Weights, gradients and the optimizer's state."""
    bytes_per_image: float
    """Of a batch."""
    watts: float
    """Of the whole machine."""


@dataclass(frozen=True)
class Expected:
    """What a recipe takes."""

    gib: float
    """To take a step with the whole batch at once."""
    parts: int
    """Into which the batch must be cut to fit into the memory given: devices, or accumulated.

    A fine-tuning cannot cut it: where this is more than 1, its batch must be smaller."""
    hours: float
    kwh: float
    loaders: int
    """Processes that read images as fast as the training takes them."""


def expect(cost: Cost, reads_per_second: float, steps: int, batch: int, memory: float) -> Expected:
    """Work out what `steps` steps of `batch` images take on the machine that was measured.

    Args:
        reads_per_second: images that one process reads, decodes, cuts and augments.
        memory: bytes of the device.
    """
    needed = batch * cost.bytes_per_image
    seconds = steps * batch / cost.images_per_second
    return Expected(
        gib=(cost.fixed_bytes + needed) / GIB,
        parts=max(1, math.ceil(needed / max(memory - cost.fixed_bytes, cost.bytes_per_image))),
        hours=seconds / 3600,
        kwh=seconds * cost.watts / emissions.JOULES_PER_KWH,
        loaders=math.ceil(cost.images_per_second / reads_per_second),
    )


def measure_training(params: Params, batches: tuple[int, int], steps: int) -> Cost:
    """Measure the pre-training of a recipe, or its fine-tuning where it takes an encoder over."""
    before = _peak_bytes()
    training, sample = create_training(params, max(batches))
    peaks, seconds = [], []
    for batch in sorted(batches):
        part = (sample[0][:batch], sample[1][:batch])
        training.optimize(part)  # allocates the optimizer's state
        _reset_peak()
        with (
            tempfile.TemporaryDirectory() as folder,  # of its own, or it would go on from the last
            emissions.measure(params.emissions, "steps", Path(folder)) as meter,
        ):
            start = time.perf_counter()
            for _ in range(steps):
                training.optimize(part)
            synchronize()
            seconds.append((time.perf_counter() - start) / steps)
        peaks.append(_peak_bytes() - before)
    spent = meter.emissions
    slope = (peaks[1] - peaks[0]) / (max(batches) - min(batches))
    return Cost(
        images_per_second=max(batches) / seconds[1],
        fixed_bytes=peaks[0] - slope * min(batches),
        bytes_per_image=slope,
        watts=spent.watts,
    )


def create_training(params: Params, batch: int) -> tuple[Training, tuple[Tensor, Tensor]]:
    """Return a recipe's training, and random images for it."""
    channels, size = params.data.channels, params.pretrain
    if params.trains_encoder:
        whole = size.model_copy(update={"batch": batch, "accumulate": 1, "crops_per_image": 1})
        run = pretraining(whole, channels)
        return run, run.fabric.to_device(random_batch(whole, channels))
    spec = EncoderSpec(
        size.model, size.patch, size.crop, channels, (0.5,) * channels, (0.2,) * channels
    )
    fabric = create_fabric(params.finetune)
    generator = torch.Generator().manual_seed(0)
    tile, classes = params.finetune.tile, params.data.classes
    shape = (batch, channels, tile, tile)
    tiles = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    masks = torch.randint(0, len(classes) + 1, (batch, tile, tile), generator=generator)
    nothing = ValidationTiles(LabelledImages(manifest_from_rows([]), params.data, Path()), tile)
    training = Finetuning(fabric, classes, params.finetune, spec, None, nothing)
    return training, fabric.to_device((tiles, masks))


def measure_reading(params: Params) -> tuple[float, float]:
    """Return images a second: one process that reads for the training, and all processes of an ingest.

    Images are decoded at each use, as where memory does not hold them all.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        _write_photographs(source)
        changes = {
            "source": source,
            "images": Path("images"),
            "splits": {},
            "group_pattern": r"(\d+)",
        }
        classes = [] if params.trains_encoder else params.data.classes
        data = params.data.model_copy(update={**changes, "classes": classes, "share": 1.0})
        masks = Path(folder) / "masks"
        frame = ingest(source, data, masks)  # also starts its server of processes
        start = time.perf_counter()
        ingest(source, data, masks)
        described = FILES / (time.perf_counter() - start)
        batches = _batches(frame, data, masks.parent, params)
        start = time.perf_counter()
        batches[0]
        return FILES / (time.perf_counter() - start), described


def _batches(frame: pd.DataFrame, data: DataParams, folder: Path, params: Params) -> Batches:
    """Return batches of FILES images for the training that the recipe is of."""
    images = DecodedImages(frame, data, budget=0)
    if params.trains_encoder:
        changes = {"batch": FILES, "crops_per_image": 1}
        return CropBatches(images, params.pretrain.model_copy(update=changes), seed=0)
    labelled = LabelledImages(frame, data, folder)
    labelled.images, labelled.masks = images, DecodedMasks(frame, folder, budget=0)
    return TileBatches(labelled, params.finetune.model_copy(update={"batch": FILES}))


def _write_photographs(source: Path) -> None:
    """Write JPEG files of the size and detail of photographs, some 110 kB each, and coarse masks."""
    images, masks = source / "images", source / "masks"
    images.mkdir(parents=True)
    masks.mkdir()
    rng = np.random.default_rng(0)
    for number in range(FILES):
        coarse = rng.integers(0, 256, (24, 32, 3), np.uint8)
        smooth = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        grain = rng.normal(0, 12, smooth.shape)
        picture = np.clip(smooth + grain, 0, 255).astype(np.uint8)
        cv2.imwrite(str(images / f"{number}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 92])
        areas = rng.integers(0, 2, (6, 8), np.uint8)
        mask = cv2.resize(areas, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(masks / f"{number}.png"), mask)


def _device_bytes() -> int:
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _peak_bytes() -> int:
    """Return the most memory held since `_reset_peak`: the device's, or this process's (Linux)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("VmHWM:") + 1]) * 1024


def _reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def recipe_params(recipe: str, overrides: list[str]) -> Params:
    """Return the parameters of a recipe."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        compose(path, [f"recipe={recipe}", *overrides])
        return load_params(path)


def report(
    recipe: str, overrides: list[str], batches: tuple[int, int], steps: int
) -> dict[str, Any]:
    """Return the row of a recipe: what was measured, and what follows."""
    params = recipe_params(recipe, overrides)
    loop = params.pretrain if params.trains_encoder else params.finetune
    cost = measure_training(params, batches, steps)
    reads, described = measure_reading(params)
    expected = expect(cost, reads, loop.steps, loop.batch, _device_bytes())
    return {
        "recipe": " ".join([recipe, *overrides]),
        "stage": "pretrain" if params.trains_encoder else "finetune",
        **asdict(cost),
        "reads_per_second": reads,
        "ingested_per_second": described,
        **asdict(expected),
    }


def main() -> None:
    """Measure, print the table and write the results."""
    parser = command.create_parser(__doc__)
    parser.add_argument("recipe", help="of conf/recipe")
    parser.add_argument(
        "--batches", type=command.count, nargs=2, default=(32, 64), help="images, measured"
    )
    parser.add_argument("--steps", type=command.count, default=10, help="measured of each")
    parser.add_argument("--set", nargs="*", default=[], help="such as pretrain.model=small")
    arguments = parser.parse_args()
    batches = (min(arguments.batches), max(arguments.batches))
    if batches[0] == batches[1]:
        raise UserError(
            f"--batches {batches[0]} {batches[1]}: name two sizes, whose difference tells."
        )
    row = report(arguments.recipe, arguments.set, batches, arguments.steps)
    command.print_hardware()
    print(pd.Series(row).to_string(float_format="{:.3g}".format))
    headline = {
        f"{row['recipe']}, {unit}": float(f"{row[unit]:.3g}") for unit in ("gib", "hours", "kwh")
    }
    print(write_results(f"paper_scale-{arguments.recipe}", headline, [row]))


if __name__ == "__main__":
    command.run(main)
