"""The pre-training step that users run, on random crops that lie on the device."""

import argparse
from collections.abc import Callable
from typing import Any

import torch

from dbp_mae.comparison.plan import changed
from dbp_mae.data.crops import Batch
from dbp_mae.encoder import EncoderSpec
from dbp_mae.params import PretrainParams, load_params
from dbp_mae.pretraining.run import Pretraining
from dbp_mae.training.loop import create_fabric

CYCLE = 8
"""Steps that a contestant takes at a stretch: the default updates R at one of so many."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the settings of a step: by default those of the MAE paper, as far as the device allows."""
    gpu = torch.cuda.is_available()
    parser.add_argument("--batch", type=int, default=256 if gpu else 64, help="images")
    parser.add_argument("--image", type=int, default=224, help="side in pixels")
    parser.add_argument("--patch", type=int, default=16, help="side in pixels")
    parser.add_argument("--channels", type=int, default=3, choices=(1, 3), help="grey or colour")
    parser.add_argument("--precision", default="auto", help="as pretrain.precision")


def step_params(arguments: argparse.Namespace, **changes: Any) -> PretrainParams:
    """Return params.yaml's settings with those of the command line and `changes`.

    The learning rate is constant and tiny: random crops teach nothing, and shall not diverge. The weights
    are not averaged: that is done some hundred times a training, however long it is.

    Raises:
        UserError: a value is out of range.
    """
    values = {
        "batch": arguments.batch,
        "crop": arguments.image,
        "patch": arguments.patch,
        "precision": arguments.precision,
        "learning_rate": 1e-6,
        "warmup_steps": 0,
        "averaging": 0,
        "crops_per_image": 1,
        **changes,
    }
    return changed(load_params().pretrain, values, "The benchmark")


def with_update(params: PretrainParams, update: str, every: int = 1) -> PretrainParams:
    """Return the settings with another decorrelation; `none` is the untouched model."""
    decorrelation = params.decorrelation
    layers = decorrelation.block_layers if update == "paper" else decorrelation.layers
    changes = {"update": update, "every": every, "layers": layers}
    decorrelation = decorrelation.model_copy(update=changes)
    return params.model_copy(update={"decorrelation": decorrelation})


def random_batch(params: PretrainParams, channels: int) -> Batch:
    """Return crops of noise, and noise for their masks."""
    generator = torch.Generator().manual_seed(0)
    shape = (params.batch, channels, params.crop, params.crop)
    pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    places = (params.batch, params.patches)
    return pixels, torch.randint(2**31, places, generator=generator, dtype=torch.int32)


def pretraining(params: PretrainParams, channels: int) -> Pretraining:
    """Return a training of random weights, as the stage sets it up."""
    spec = EncoderSpec(
        params.model, params.patch, params.crop, channels, (0.5,) * channels, (0.2,) * channels
    )
    pixels, noise = random_batch(params, channels)
    return Pretraining(create_fabric(params), spec, params, (pixels[:1], noise[:1]), lambda: pixels)


def stepper(params: PretrainParams, channels: int) -> Callable[[], object]:
    """Return a function that takes one training step."""
    run = pretraining(params, channels)
    batch = run.fabric.to_device(random_batch(params, channels))
    return lambda: run.optimize(batch)
