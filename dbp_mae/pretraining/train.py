"""The pre-training loop: masked autoencoding of crops, with or without decorrelation."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from lightning.fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from dbp_mae.checkpoint import Checkpoint
from dbp_mae.data.crops import Batch, CropBatches
from dbp_mae.data.images import DecodedImages, pooled_statistics
from dbp_mae.encoder import EncoderSpec
from dbp_mae.errors import UserError
from dbp_mae.params import DataParams, PretrainParams
from dbp_mae.precision import resolve
from dbp_mae.pretraining.decorrelation import Decorrelator, check_sample
from dbp_mae.pretraining.masked_autoencoder import MaskedAutoencoder
from dbp_mae.pretraining.optimizers import create_optimizers, set_learning_rate
from dbp_mae.schedule import warmup_cosine

LOG_EVERY = 10
"""Steps between two looks at the loss; each look waits for the device."""
VALIDATION_CROPS = 256
CLIP_NORM = 1.0


@dataclass(frozen=True)
class Pretrained:
    """What a pre-training gives."""

    model: MaskedAutoencoder
    """R folded in, on the CPU."""
    spec: EncoderSpec
    curves: pd.DataFrame
    """step, seconds (of training alone), train_loss, val_loss, learning_rate, images_per_second,
    data_wait_share, correlation."""
    constant_loss: float
    """The validation loss of predicting each patch's mean: what a network that learnt nothing scores."""
    validation: Batch


def pretrain(
    frame: pd.DataFrame,
    data: DataParams,
    params: PretrainParams,
    checkpoint: Checkpoint,
    on_checkpoint: Callable[[], None] = lambda: None,
) -> Pretrained:
    """Pre-train on the images of `frame` (a validated manifest), split train; validate on split val.

    A run that was killed goes on from `checkpoint` and ends bit-identical to one that was not;
    `on_checkpoint` is called whenever that is written.

    Raises:
        UserError: a split is empty, a setting is out of range, or the loss is no longer finite.
    """
    fabric = Fabric(accelerator="auto", devices=1, precision=resolve(params.precision))
    fabric.seed_everything(params.seed, verbose=False)
    training = _images(frame, data, "train")
    validation = validation_batch(_images(frame, data, "val"), params)
    mean, std = pooled_statistics(frame[frame["split"] == "train"])
    spec = EncoderSpec(params.model, params.patch, params.crop, data.channels, mean, std)
    run = _Run(fabric, spec, params)
    state = checkpoint.load()
    if state:
        run.load_state(state)
    batches = _loader(CropBatches(training, params, params.seed), params, start=run.step)
    held_out = fabric.to_device(validation)

    progress = tqdm(total=params.steps, initial=run.step, desc="pretrain", unit="step")
    clock = time.perf_counter()
    for batch in batches:
        waited = time.perf_counter() - clock
        run.train_step(fabric.to_device(batch))
        run.waited += waited
        run.seconds += time.perf_counter() - clock
        if run.step % LOG_EVERY == 0 or run.step == params.steps:
            progress.update(run.step - progress.n)
            progress.set_postfix(run.progress())
        if run.step % params.validate_every == 0 or run.step == params.steps:
            run.log(held_out)
        if run.step % params.checkpoint_every == 0 and run.step < params.steps:
            checkpoint.save(run.state())
            on_checkpoint()
        clock = time.perf_counter()
    progress.close()
    constant_loss = run.constant_loss(held_out)
    return Pretrained(run.fold(), spec, pd.DataFrame(run.rows), constant_loss, validation)


class _Run:
    """The state of a pre-training: all that changes from step to step."""

    def __init__(self, fabric: Fabric, spec: EncoderSpec, params: PretrainParams) -> None:
        self.fabric, self.params = fabric, params
        self.plain_model = MaskedAutoencoder(spec, params)
        self.decorrelator = self._attach_decorrelator()
        optimizers = create_optimizers(self.plain_model, params)
        self.model, *self.optimizers = fabric.setup(self.plain_model, *optimizers)
        if params.compile:
            self.model.compile()
        self.step = 0
        self.seconds = 0.0
        self.waited = 0.0
        self.losses: list[Tensor] = []
        self.rows: list[dict[str, float]] = []

    def _attach_decorrelator(self) -> Decorrelator | None:
        params = self.params
        if params.decorrelation.update == "none":
            return None
        visible = round((params.crop // params.patch) ** 2 * (1 - params.mask_ratio)) + 1
        check_sample(params.decorrelation, params.batch * visible)
        return Decorrelator(self.plain_model.encoder, params.decorrelation, params.seed)

    def train_step(self, batch: Batch) -> None:
        """Take one optimization step."""
        params = self.params
        scale = warmup_cosine(self.step, params.steps, params.warmup_steps)
        set_learning_rate(self.optimizers, params.learning_rate * scale)
        self.model.train()
        loss = self.model(*batch)
        self.fabric.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.plain_model.parameters(), CLIP_NORM)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if self.decorrelator:
            self.decorrelator.step(scale)
        self.losses.append(loss.detach())
        self.step += 1
        if self.step % LOG_EVERY == 0 or self.step == params.steps:
            self._check_finite()

    def _check_finite(self) -> None:
        if not math.isfinite(float(torch.stack(self.losses[-LOG_EVERY:]).sum())):
            raise UserError(
                f"The pre-training loss is no longer finite at step {self.step}: lower "
                "pretrain.learning_rate or pretrain.decorrelation.eps."
            )

    @torch.no_grad()
    def log(self, held_out: Batch) -> None:
        """Validate and add a row to the curves."""
        params = self.params
        self.model.eval()
        since = self.rows[-1] if self.rows else {"step": 0, "seconds": 0.0}
        seconds = self.seconds - since["seconds"]
        images = (self.step - since["step"]) * params.batch
        scale = warmup_cosine(self.step - 1, params.steps, params.warmup_steps)
        row = {
            "step": self.step,
            "seconds": self.seconds,
            "train_loss": float(torch.stack(self.losses).mean()),
            "val_loss": float(self.model(*held_out)),
            "learning_rate": params.learning_rate * scale,
            "images_per_second": images / seconds,
            "data_wait_share": self.waited / seconds,
        }
        if self.decorrelator:
            row["correlation"] = self.decorrelator.correlation()
        self.rows.append(row)
        self.losses.clear()
        self.waited = 0.0

    def progress(self) -> dict[str, str]:
        """Return the figures of the progress bar."""
        since = self.rows[-1] if self.rows else {"step": 0, "seconds": 0.0}
        seconds = self.seconds - since["seconds"]
        figures = {"images/s": f"{(self.step - since['step']) * self.params.batch / seconds:.0f}"}
        figures["waiting"] = f"{self.waited / seconds:.0%}"
        if self.losses:
            figures["loss"] = f"{float(self.losses[-1]):.3f}"
        if self.rows:
            figures["val"] = f"{self.rows[-1]['val_loss']:.3f}"
        return figures

    @torch.no_grad()
    def constant_loss(self, held_out: Batch) -> float:
        """Return the validation loss of predicting every patch's own mean."""
        pixels, noise = held_out
        images = self.plain_model.normalize(pixels)
        _, mask, _ = self.plain_model.random_masking(noise)
        constant = torch.zeros_like(self.plain_model.patchify(images))
        return float(self.plain_model.forward_loss(images, constant, mask))

    def state(self) -> dict[str, Any]:
        """Return all that a bit-identical resume needs."""
        return {
            "model": self.plain_model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "seconds": self.seconds,
            "waited": self.waited,
            "losses": [float(loss) for loss in self.losses],
            "rows": self.rows,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.plain_model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.seconds, self.waited = state["step"], state["seconds"], state["waited"]
        self.losses = [torch.tensor(loss, device=self.fabric.device) for loss in state["losses"]]
        self.rows = state["rows"]
        if self.decorrelator:
            self.decorrelator.steps = self.step

    def fold(self) -> MaskedAutoencoder:
        """Return the trained network, R folded in."""
        if self.decorrelator:
            self.decorrelator.fold()
        return self.plain_model.cpu().eval()


def validation_batch(images: DecodedImages, params: PretrainParams) -> Batch:
    """Return fixed crops of the validation images with fixed masks; the same for every seed."""
    used = min(len(images), VALIDATION_CROPS)
    each = math.ceil(VALIDATION_CROPS / used)
    fixed = params.model_copy(update={"batch": used * each, "crops_per_image": each})
    return CropBatches(images, fixed, seed=0)[0]


def _images(frame: pd.DataFrame, data: DataParams, split: str) -> DecodedImages:
    rows = frame[frame["split"] == split]
    if rows.empty:
        raise UserError(
            f"No image is in the split {split}: see data/quarantine.csv, or give it a larger share."
        )
    return DecodedImages(rows, data)


def _loader(batches: CropBatches, params: PretrainParams, start: int) -> DataLoader[Batch]:
    return DataLoader(
        batches,
        batch_size=None,
        sampler=range(start, params.steps),
        num_workers=params.workers,
        pin_memory=torch.cuda.is_available(),
    )


def summarize(result: Pretrained, params: PretrainParams, images: int) -> dict[str, Any]:
    """Return the figures of a pre-training that stand in the report."""
    last = result.curves.iloc[-1]
    return {
        "val_loss": float(last["val_loss"]),
        "constant_loss": result.constant_loss,
        "seconds": float(last["seconds"]),
        "steps": int(last["step"]),
        "parameters": sum(weight.numel() for weight in result.model.encoder.parameters()),
        "images": images,
        "model": params.model,
        "optimizer": params.optimizer,
        "decorrelation": params.decorrelation.update,
    }
