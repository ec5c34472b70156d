"""A pre-training of seconds on pictures made of whole numbers, so that they are the same anywhere."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from default_params import default_params
from lightning.fabric import Fabric
from torch import Tensor

from dbp_mae.data.crops import CropBatches
from dbp_mae.data.images import DecodedImages
from dbp_mae.encoder import EncoderSpec
from dbp_mae.params import DecorrelationParams, PretrainParams
from dbp_mae.pretraining.images import fixed_crops
from dbp_mae.pretraining.run import Pretraining
from dbp_mae.training.checkpoint import Checkpoint

SPEC = EncoderSpec("nano", 8, 32, 1, (0.5,), (0.25,))
DECORRELATION = DecorrelationParams(
    update="function-preserving",
    eps=0.01,
    total_eps=None,
    kappa=0.5,
    sample=0.5,
    every=1,
    block=None,
    layers=["patch_embed", "qkv", "proj", "fc1", "fc2"],
)
PARAMS = PretrainParams(
    source=Path("images"),
    model="nano",
    patch=8,
    crop=32,
    scale=None,
    mask_ratio=0.75,
    decoder_dim=32,
    decoder_depth=1,
    optimizer="adamw",
    learning_rate=1e-3,
    rest_rate=0.5,
    weight_decay=0.05,
    steps=20,
    warmup_steps=5,
    averaging=0.0,
    batch=8,
    accumulate=1,
    devices=1,
    crops_per_image=2,
    validate_every=20,
    checkpoint_every=20,
    precision="32-true",
    compile=False,
    workers=0,
    seed=0,
    decorrelation=DECORRELATION,
)


def tiny_params(**changes: object) -> PretrainParams:
    """Return PARAMS with changes; those of decorrelation by their own names, as in `update=`."""
    inner = {
        key: changes.pop(key) for key in list(changes) if key in DecorrelationParams.model_fields
    }
    decorrelation = DECORRELATION.model_copy(update=inner)
    return PARAMS.model_copy(update={"decorrelation": decorrelation, **changes})


def pictures(count: int) -> DecodedImages:
    """Return as many pictures of coarse and fine squares: uint8, 48 x 48 x 1."""
    rng = np.random.default_rng(0)

    def squares(size: int) -> np.ndarray:
        values = rng.integers(0, 86, (48 // size, 48 // size, 1), dtype=np.uint8)
        return values.repeat(size, axis=0).repeat(size, axis=1)

    data = default_params().data.model_copy(update={"upright": False})
    images = DecodedImages(pd.DataFrame({"path": [f"{index}.png" for index in range(count)]}), data)
    images.kept = {index: squares(3) + squares(8) + squares(24) for index in range(count)}
    return images


def start(params: PretrainParams, fabric: Fabric | None = None) -> tuple[Pretraining, CropBatches]:
    """Return a training before its first step, and its batches, or this process's part of them."""
    torch.manual_seed(params.seed)
    validation = fixed_crops(pictures(2), params)
    fabric = fabric or Fabric(accelerator="cpu", devices=1, precision=params.precision)
    batches = CropBatches(pictures(6), params, params.seed, fabric.global_rank, fabric.world_size)
    training = Pretraining(
        fabric, SPEC, params, validation, lambda: fixed_crops(pictures(6), params)[0]
    )
    return training, batches


def step(training: Pretraining, batches: CropBatches) -> float:
    """Take the next step; return its loss."""
    loss = training.optimize(batches[training.step])
    training.step += 1
    return float(loss)


def train(params: PretrainParams, folder: Path, fabric: Fabric | None = None) -> dict[str, Tensor]:
    """Train to the end with checkpoints in `folder`; return the last state of the model."""
    training, batches = start(params, fabric)
    training.run(batches, Checkpoint(folder))
    return training.learnt()["model"]
