"""The pre-training loop: masked autoencoding of crops, with or without decorrelation."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import pandas as pd
import torch
from lightning.fabric import Fabric
from torch import Tensor

from dbp_mae.checkpoint import Checkpoint
from dbp_mae.data.crops import Batch, CropBatches
from dbp_mae.data.images import DecodedImages, pooled_statistics
from dbp_mae.encoder import EncoderSpec
from dbp_mae.errors import UserError
from dbp_mae.params import DataParams, PretrainParams
from dbp_mae.pretraining.decorrelation import Decorrelator, check_sample
from dbp_mae.pretraining.masked_autoencoder import MaskedAutoencoder, select
from dbp_mae.pretraining.optimizers import create_optimizers, set_learning_rate
from dbp_mae.training import Training, clip_gradients, create_fabric

VALIDATION_CROPS = 256


@dataclass(frozen=True)
class Pretrained:
    """What a pre-training gives."""

    model: MaskedAutoencoder
    """R folded in, on the CPU."""
    spec: EncoderSpec
    curves: pd.DataFrame
    """step, seconds (of training alone), train_loss, learning_rate, images_per_second,
    data_wait_share, val_loss, correlation."""
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
    images = PretrainingImages.of(frame, data, params.workers)
    run = create_run(images, params)
    run.run(images.batches(params), checkpoint, on_checkpoint)
    constant_loss = run.constant_loss()
    validation = validation_batch(images.validation, params)
    return Pretrained(run.fold(), run.spec, pd.DataFrame(run.rows), constant_loss, validation)


@dataclass(frozen=True)
class PretrainingImages:
    """The images of a validated manifest that a pre-training sees."""

    training: DecodedImages
    validation: DecodedImages
    channels: int
    mean: tuple[float, ...]
    """Of the training images by channel, on the scale of 0 to 1."""
    std: tuple[float, ...]

    @classmethod
    def of(cls, frame: pd.DataFrame, data: DataParams, workers: int) -> Self:
        """Take the splits train and val of `frame`, train for so many loading processes.

        Raises:
            UserError: one of them is empty.
        """
        training = _images(frame, data, "train", workers)
        validation = _images(frame, data, "val", workers=0)
        mean, std = pooled_statistics(frame[frame["split"] == "train"])
        return cls(training, validation, data.channels, mean, std)

    def batches(self, params: PretrainParams) -> CropBatches:
        """Return the batches by step, as `params.seed` decides."""
        return CropBatches(self.training, params, params.seed)


def create_run(images: PretrainingImages, params: PretrainParams) -> "Pretraining":
    """Return a pre-training before its first step, all seeds set."""
    spec = EncoderSpec(
        params.model, params.patch, params.crop, images.channels, images.mean, images.std
    )
    validation = validation_batch(images.validation, params)
    return Pretraining(create_fabric(params), spec, params, validation)


class Pretraining(Training):
    """Masked autoencoding, its encoder decorrelated or not."""

    name = "pretrain"
    advice = "lower pretrain.learning_rate or pretrain.decorrelation.eps"

    def __init__(
        self, fabric: Fabric, spec: EncoderSpec, params: PretrainParams, validation: Batch
    ) -> None:
        super().__init__(fabric, params)
        self.params, self.spec = params, spec
        self.plain_model = MaskedAutoencoder(spec, params)
        self.decorrelator = self._attach_decorrelator()
        optimizers = create_optimizers(self.plain_model, params)
        self.model, *self.optimizers = fabric.setup(self.plain_model, *optimizers)
        if params.compile:
            self.model.compile()
        self.validation = fabric.to_device(validation)

    def _attach_decorrelator(self) -> Decorrelator | None:
        params = self.params
        if params.decorrelation.update == "none":
            return None
        visible = round((params.crop // params.patch) ** 2 * (1 - params.mask_ratio)) + 1
        check_sample(params.decorrelation, params.batch * visible)
        return Decorrelator(self.plain_model.encoder, params.decorrelation, params.seed)

    def optimize(self, batch: Batch) -> Tensor:
        """Take an optimization step, and then one of the decorrelating matrices."""
        set_learning_rate(self.optimizers, self.params.learning_rate * self.schedule)
        self.model.train()
        loss: Tensor = self.model(*batch)
        self.fabric.backward(loss)
        clip_gradients(self.plain_model)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if self.decorrelator:
            self.decorrelator.step(self.schedule)
        return loss

    def validate(self) -> dict[str, float]:
        """Return val_loss and, where there is decorrelation, the correlation that is left."""
        self.model.eval()
        columns = {"val_loss": float(self.model(*self.validation))}
        if self.decorrelator:
            columns["correlation"] = self.decorrelator.correlation()
        return columns

    @torch.no_grad()
    def constant_loss(self) -> float:
        """Return the validation loss of predicting every patch's own mean."""
        pixels, noise = self.validation
        model = self.plain_model
        _, masked = model.random_masking(noise)
        patches = select(model.patchify(model.normalize(pixels)), masked)
        return float(model.forward_loss(patches, torch.zeros_like(patches)))

    def learnt(self) -> dict[str, Any]:
        """Return the model's state, R included, and the optimizers'."""
        return {
            "model": self.plain_model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def load_learnt(self, state: dict[str, Any]) -> None:
        """Go on from what `learnt` returned."""
        self.plain_model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
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


def _images(frame: pd.DataFrame, data: DataParams, split: str, workers: int) -> DecodedImages:
    rows = frame[frame["split"] == split]
    if rows.empty:
        raise UserError(
            f"No image is in the split {split}: see data/quarantine.csv, or give it a larger share."
        )
    return DecodedImages(rows, data, workers)


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
