"""The fine-tuning loop: a segmenter on a pre-trained encoder, or from scratch as its control."""

import math
import operator
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.fabric import Fabric
from timm.layers import set_fused_attn, use_fused_attn
from torch import Tensor

from dbp_mae.data.batches import load
from dbp_mae.data.manifest import labelled_in
from dbp_mae.data.tiles import LabelledImages, TileBatch, TileBatches, ValidationTiles
from dbp_mae.encoder import EncoderSpec
from dbp_mae.errors import UserError
from dbp_mae.params import DataParams, FinetuneParams
from dbp_mae.segmentation.background import (
    OFFSETS,
    best_offset,
    confusion_by_offset,
    count_leads,
    lead_codes,
)
from dbp_mae.segmentation.loss import SegmentationLoss
from dbp_mae.segmentation.metrics import mean_iou
from dbp_mae.segmentation.network import SegmentationNetwork
from dbp_mae.segmentation.optimizer import create_optimizer
from dbp_mae.training.checkpoint import Checkpoint
from dbp_mae.training.loop import Training, clip_gradients, create_fabric


@dataclass(frozen=True)
class Finetuned:
    """What a fine-tuning gives."""

    segmenter: SegmentationNetwork
    """With the weights of the best validation, its offset in the last bias; on the CPU, ready to predict."""
    curves: pd.DataFrame
    """step, seconds (of training alone), train_loss, learning_rate, images_per_second,
    data_wait_share, val_miou."""
    best: dict[str, float]
    """step, val_miou and background_offset of the best validation."""
    labelled_images: int


def finetune(
    frame: pd.DataFrame,
    folder: Path,
    data: DataParams,
    params: FinetuneParams,
    spec: EncoderSpec,
    weights: dict[str, Tensor] | None,
    checkpoint: Checkpoint,
) -> Finetuned:
    """Fine-tune on the labelled images of `frame` (a validated manifest), split train.

    The weights of the best mIoU on split val are kept, with the offset of the background that gave it.
    A run that was killed goes on from `checkpoint`.

    Args:
        folder: the data folder, which the manifest's mask paths start from.
        weights: of a pre-trained encoder, or None to start from random weights.

    Raises:
        UserError: a split has no labelled image, or the loss is no longer finite.
        Interrupted: by SIGINT or SIGTERM.
    """
    fabric = create_fabric(params)
    training, validation = (
        LabelledImages(_labelled(frame, split), data, folder) for split in ("train", "val")
    )
    held_out = ValidationTiles(validation, params.tile)
    run = Finetuning(fabric, data.classes, params, spec, weights, held_out)
    run.run(TileBatches(training, params), checkpoint)
    return run.result(len(training))


class Finetuning(Training):
    """Supervised segmentation of labelled tiles."""

    params: FinetuneParams
    advice = "lower finetune.learning_rate"
    economy = "lower finetune.batch or finetune.tile"

    def __init__(
        self,
        fabric: Fabric,
        classes: list[str],
        params: FinetuneParams,
        spec: EncoderSpec,
        weights: dict[str, Tensor] | None,
        held_out: ValidationTiles,
    ) -> None:
        super().__init__(fabric, params)
        self.name = "finetune" if weights else "scratch"
        self.classes, self.held_out = classes, held_out
        # A CPU's fused attention has a slow backward pass in bf16.
        with _attention(fused=fabric.device.type != "cpu"):
            self.segmenter = SegmentationNetwork(
                spec, params.tile, len(classes), params.decoder_width
            )
        if weights:
            self.segmenter.load_encoder_weights(weights)
        self.segmenter.encoder.requires_grad_(params.encoder_rate > 0)
        optimizer = create_optimizer(self.segmenter, params)
        self.model, self.optimizer = fabric.setup(self.segmenter, optimizer)
        self.loss = fabric.to_device(SegmentationLoss(len(classes)))
        self.best: dict[str, float] = {}
        self.best_quality = -math.inf
        self.best_weights: dict[str, Tensor] = {}

    def optimize(self, batch: TileBatch) -> Tensor:
        """Take an optimization step."""
        rate = self.params.learning_rate * self.schedule
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        self.model.train()
        tiles, masks = batch
        loss: Tensor = self.loss(self.model(tiles), masks)
        self.fabric.backward(loss)
        clip_gradients(self.segmenter.parameters())
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss

    def validate(self) -> dict[str, float]:
        """Return val_miou, at its best offset of the background; keep the weights of the best so far."""
        self.model.eval()
        batches = load(self.held_out, range(len(self.held_out)), self.params.workers)
        by_offset = confusion_by_offset(reduce(operator.add, map(self._counts, batches)))
        chosen = best_offset(by_offset)
        confusion = by_offset[chosen]
        columns = {"val_miou": float(mean_iou(confusion))}
        quality = _quality(confusion)
        if quality >= self.best_quality:
            self.best_quality = quality
            self.best = {"step": self.step, **columns, "background_offset": float(OFFSETS[chosen])}
            self.best_weights = {
                key: value.detach().cpu().clone()
                for key, value in self.segmenter.state_dict().items()
            }
        return columns

    def _counts(self, batch: TileBatch) -> np.ndarray:
        tiles, masks = batch
        codes = [
            lead_codes(self.model(self.fabric.to_device(part))).cpu()
            for part in tiles.split(self.params.batch)
        ]
        return count_leads(torch.cat(codes).numpy(), masks.numpy(), len(self.classes))

    def learnt(self) -> dict[str, Any]:
        """Return the states of the network and the optimizer, and the best so far."""
        return {
            "segmenter": self.segmenter.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
            "best_quality": self.best_quality,
            "best_weights": self.best_weights,
        }

    def load_learnt(self, state: dict[str, Any]) -> None:
        """Go on from what `learnt` returned."""
        self.segmenter.load_state_dict(state["segmenter"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name in ("best", "best_quality", "best_weights"):
            setattr(self, name, state[name])

    def result(self, labelled_images: int) -> Finetuned:
        """Return the segmenter at its best."""
        self.segmenter.load_state_dict(self.best_weights)
        self.segmenter.offset_background(self.best["background_offset"])
        return Finetuned(
            segmenter=self.segmenter.cpu().eval(),
            curves=pd.DataFrame(self.rows),
            best=self.best,
            labelled_images=labelled_images,
        )


def summarize(result: Finetuned) -> dict[str, Any]:
    """Return the figures of a fine-tuning that stand in the report."""
    last = result.curves.iloc[-1]
    return {
        "val_miou": _none_if_unknown(result.best["val_miou"]),
        "best_step": int(result.best["step"]),
        "background_offset": result.best["background_offset"],
        "seconds": float(last["seconds"]),
        "steps": int(last["step"]),
        "labelled_images": result.labelled_images,
    }


@contextmanager
def _attention(fused: bool) -> Iterator[None]:
    """Choose the attention of the networks made in this block; others keep theirs."""
    before = use_fused_attn()
    set_fused_attn(fused)
    try:
        yield
    finally:
        set_fused_attn(before)


def _quality(confusion: np.ndarray) -> float:
    """Return the mIoU; where no class is labelled, the share of the pixels that are not called one."""
    miou = float(mean_iou(confusion))
    return float(confusion[0, 0] / confusion.sum()) if math.isnan(miou) else miou


def _none_if_unknown(share: float) -> float | None:
    return None if math.isnan(share) else share


def _labelled(frame: pd.DataFrame, split: str) -> pd.DataFrame:
    rows = labelled_in(frame, split)
    if rows.empty:
        raise UserError(
            f"No labelled image is in the split {split}: label parts of at least three groups."
        )
    return rows
