"""The fine-tuning loop: a segmenter on a pre-trained encoder, or from scratch as its control."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.fabric import Fabric
from timm.optim import param_groups_layer_decay
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from dbp_mae.checkpoint import Checkpoint
from dbp_mae.data.tiles import LabelledImages, TileBatch, TileBatches, validation_tiles
from dbp_mae.encoder import EncoderSpec
from dbp_mae.errors import UserError
from dbp_mae.params import DataParams, FinetuneParams
from dbp_mae.precision import resolve
from dbp_mae.schedule import warmup_cosine
from dbp_mae.segmentation.loss import SegmentationLoss
from dbp_mae.segmentation.metrics import confusion_matrix, iou, mean_iou
from dbp_mae.segmentation.network import Segmenter

LOG_EVERY = 10
"""Steps between two looks at the loss; each look waits for the device."""
CLIP_NORM = 1.0


@dataclass(frozen=True)
class Finetuned:
    """What a fine-tuning gives."""

    segmenter: Segmenter
    """With the weights of the best validation, on the CPU, ready to predict."""
    curves: pd.DataFrame
    """step, seconds (of training alone), train_loss, val_miou, learning_rate."""
    best: dict[str, float]
    """The row of `curves` with the best val_miou."""
    val_iou: dict[str, float]
    """By class; nan where a class is neither labelled nor predicted."""
    labelled_images: int


def finetune(
    frame: pd.DataFrame,
    folder: Path,
    data: DataParams,
    params: FinetuneParams,
    spec: EncoderSpec,
    weights: dict[str, Tensor] | None,
    checkpoint: Checkpoint,
    on_checkpoint: Callable[[], None] = lambda: None,
) -> Finetuned:
    """Fine-tune on the labelled images of `frame` (a validated manifest), split train.

    The weights of the best mIoU on split val are kept. A run that was killed goes on from `checkpoint`;
    `on_checkpoint` is called whenever that is written.

    Args:
        folder: the data folder, which the manifest's mask paths start from.
        weights: of a pre-trained encoder, or None to start from random weights; these train without
            layer-wise decay of the learning rate, which presupposes layers that know something.

    Raises:
        UserError: a split has no labelled image, or the loss is no longer finite.
    """
    fabric = Fabric(accelerator="auto", devices=1, precision=resolve(params.precision))
    fabric.seed_everything(params.seed, verbose=False)
    training, validation = (
        LabelledImages(_labelled(frame, split), data, folder) for split in ("train", "val")
    )
    run = _Run(fabric, data, params, spec, weights)
    if state := checkpoint.load():
        run.load_state(state)
    loader = DataLoader(
        TileBatches(training, params),
        batch_size=None,
        sampler=range(run.step, params.steps),
        num_workers=params.workers,
        pin_memory=torch.cuda.is_available(),
    )
    held_out = validation_tiles(validation, params.tile)

    progress = tqdm(total=params.steps, initial=run.step, desc="finetune", unit="step")
    clock = time.perf_counter()
    for batch in loader:
        run.train_step(fabric.to_device(batch))
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
    return run.result(len(training))


class _Run:
    """The state of a fine-tuning: all that changes from step to step."""

    def __init__(
        self,
        fabric: Fabric,
        data: DataParams,
        params: FinetuneParams,
        spec: EncoderSpec,
        weights: dict[str, Tensor] | None,
    ) -> None:
        self.fabric, self.params, self.classes = fabric, params, data.classes
        self.segmenter = Segmenter(spec, params.tile, len(data.classes), params.decoder_width)
        if weights:
            self.segmenter.load_encoder_weights(weights)
        groups = param_groups_layer_decay(
            self.segmenter.encoder,
            weight_decay=params.weight_decay,
            layer_decay=params.layer_decay if weights else 1.0,
        )
        fresh = [
            weight
            for name, weight in self.segmenter.named_parameters()
            if not name.startswith("encoder.")
        ]
        groups.append({"params": fresh, "weight_decay": params.weight_decay, "lr_scale": 1.0})
        self.model, self.optimizer = fabric.setup(
            self.segmenter, torch.optim.AdamW(groups, lr=params.learning_rate)
        )
        self.loss = fabric.to_device(SegmentationLoss(len(data.classes)))
        self.step = 0
        self.seconds = 0.0
        self.losses: list[Tensor] = []
        self.rows: list[dict[str, float]] = []
        self.best: dict[str, float] = {}
        self.best_weights: dict[str, Tensor] = {}
        self.best_iou: list[float] = []

    def train_step(self, batch: TileBatch) -> None:
        """Take one optimization step."""
        params = self.params
        rate = params.learning_rate * warmup_cosine(self.step, params.steps, params.warmup_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        self.model.train()
        tiles, masks = batch
        loss = self.loss(self.model(tiles), masks)
        self.fabric.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.segmenter.parameters(), CLIP_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.losses.append(loss.detach())
        self.step += 1
        if self.step % LOG_EVERY == 0 or self.step == params.steps:
            self._check_finite()

    def _check_finite(self) -> None:
        if not math.isfinite(float(torch.stack(self.losses[-LOG_EVERY:]).sum())):
            raise UserError(
                f"The fine-tuning loss is no longer finite at step {self.step}: lower "
                "finetune.learning_rate."
            )

    @torch.no_grad()
    def log(self, held_out: list[TileBatch]) -> None:
        """Validate, add a row to the curves, and keep the weights if they are the best so far."""
        params = self.params
        self.model.eval()
        confusion = np.sum([self._confusion(batch) for batch in held_out], axis=0)
        scale = warmup_cosine(self.step - 1, params.steps, params.warmup_steps)
        row = {
            "step": self.step,
            "seconds": self.seconds,
            "train_loss": float(torch.stack(self.losses).mean()),
            "val_miou": float(mean_iou(confusion)),
            "learning_rate": params.learning_rate * scale,
        }
        self.rows.append(row)
        self.losses.clear()
        if not self.best or _known(row["val_miou"]) >= _known(self.best["val_miou"]):
            self.best = row
            self.best_iou = iou(confusion)[1:].tolist()
            self.best_weights = {
                key: value.detach().cpu().clone()
                for key, value in self.segmenter.state_dict().items()
            }

    def _confusion(self, batch: TileBatch) -> np.ndarray:
        tiles, masks = batch
        predicted = [
            self.model(self.fabric.to_device(part)).argmax(dim=1).cpu()
            for part in tiles.split(self.params.batch)
        ]
        return confusion_matrix(torch.cat(predicted).numpy(), masks.numpy(), len(self.classes))

    def progress(self) -> dict[str, str]:
        """Return the figures of the progress bar."""
        figures = {"tiles/s": f"{self.step * self.params.batch / self.seconds:.0f}"}
        if self.losses:
            figures["loss"] = f"{float(self.losses[-1]):.3f}"
        if self.rows:
            figures["val mIoU"] = f"{self.rows[-1]['val_miou']:.3f}"
        return figures

    def state(self) -> dict[str, Any]:
        """Return all that a bit-identical resume needs."""
        return {
            "segmenter": self.segmenter.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "losses": [float(loss) for loss in self.losses],
            "rows": self.rows,
            "best": self.best,
            "best_weights": self.best_weights,
            "best_iou": self.best_iou,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.segmenter.load_state_dict(state["segmenter"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.losses = [torch.tensor(loss, device=self.fabric.device) for loss in state["losses"]]
        for name in ("step", "seconds", "rows", "best", "best_weights", "best_iou"):
            setattr(self, name, state[name])

    def result(self, labelled_images: int) -> Finetuned:
        """Return the segmenter at its best."""
        self.segmenter.load_state_dict(self.best_weights)
        return Finetuned(
            segmenter=self.segmenter.cpu().eval(),
            curves=pd.DataFrame(self.rows),
            best=self.best,
            val_iou=dict(zip(self.classes, self.best_iou, strict=True)),
            labelled_images=labelled_images,
        )


def summarize(result: Finetuned) -> dict[str, Any]:
    """Return the figures of a fine-tuning that stand in the report."""
    last = result.curves.iloc[-1]
    return {
        "val_miou": _none_if_unknown(result.best["val_miou"]),
        "val_iou": {name: _none_if_unknown(share) for name, share in result.val_iou.items()},
        "best_step": int(result.best["step"]),
        "seconds": float(last["seconds"]),
        "steps": int(last["step"]),
        "labelled_images": result.labelled_images,
    }


def _known(share: float) -> float:
    """Return the share, or -1 where it is unknown: no class was labelled or predicted."""
    return -1.0 if math.isnan(share) else share


def _none_if_unknown(share: float) -> float | None:
    return None if math.isnan(share) else share


def _labelled(frame: pd.DataFrame, split: str) -> pd.DataFrame:
    rows = frame[(frame["split"] == split) & (frame["label_state"] == "labelled")]
    if rows.empty:
        raise UserError(
            f"No labelled image is in the split {split}: label parts of at least three groups."
        )
    return rows
