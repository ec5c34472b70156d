"""One pre-training: its network, its step, its validation and its state."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from dbp_mae.data.crops import Batch
from dbp_mae.encoder import EncoderSpec
from dbp_mae.energy import EnergyMeter
from dbp_mae.params import PretrainParams
from dbp_mae.pretraining.decorrelator import Decorrelator, check_sample, step_length
from dbp_mae.pretraining.images import PretrainingImages, fixed_crops
from dbp_mae.pretraining.masked_autoencoder import MaskedAutoencoder, select
from dbp_mae.pretraining.optimizers import create_optimizers, set_learning_rate
from dbp_mae.pretraining.patch_whitening import fold_patches, whiten_patches
from dbp_mae.pretraining.processes import mean_over_processes
from dbp_mae.pretraining.weight_average import create_average
from dbp_mae.training.loop import Training, clip_gradients, create_fabric


def create_run(
    images: PretrainingImages,
    params: PretrainParams,
    fabric: Fabric | None = None,
    energy: EnergyMeter | None = None,
) -> "Pretraining":
    """Return a pre-training before its first step; without `fabric` on one device, all seeds set."""
    spec = EncoderSpec(
        params.model, params.patch, params.crop, images.channels, images.mean, images.std
    )
    validation = fixed_crops(images.validation, params)
    fabric = fabric or create_fabric(params)
    return Pretraining(
        fabric, spec, params, validation, lambda: fixed_crops(images.training, params)[0], energy
    )


class Pretraining(Training):
    """Masked autoencoding, its encoder decorrelated or not.

    Each of Fabric's processes is given its part of every batch, and cuts it into `params.accumulate`
    micro-batches. Where patches are whitened, `crops` is called for raw training images, uint8, B C H W.
    """

    params: PretrainParams
    name = "pretrain"
    advice = "lower pretrain.learning_rate, or total_eps or eps of pretrain.decorrelation"
    economy = "raise pretrain.accumulate, or lower pretrain.batch"

    def __init__(
        self,
        fabric: Fabric,
        spec: EncoderSpec,
        params: PretrainParams,
        validation: Batch,
        crops: Callable[[], Tensor],
        energy: EnergyMeter | None = None,
    ) -> None:
        super().__init__(fabric, params, energy)
        self.spec = spec
        self.passes = fabric.world_size * params.accumulate
        self.plain_model = MaskedAutoencoder(spec, params).to(fabric.device)
        self.average = create_average(self.plain_model, params)
        if params.decorrelation.whitens_patches:
            self._whiten_patches(crops())
        self.decorrelator = self._attach_decorrelator()
        self.parameters = list(self.plain_model.parameters())
        optimizers = create_optimizers(self.plain_model, params)
        self.model, *self.optimizers = fabric.setup(self.plain_model, *optimizers)
        if params.compile:
            self.plain_model.compile()
        self.validation = fabric.to_device(validation)

    @torch.no_grad()
    def _whiten_patches(self, crops: Tensor) -> None:
        """Decorrelate the inputs of the patch embedding, which counts as training."""
        model = self.plain_model
        with self.within_memory("the whitening of patches"), self.counted():
            images = model.normalize(self.fabric.to_device(crops))
            whiten_patches(model.encoder.patch_embed.proj, images)

    def _attach_decorrelator(self) -> Decorrelator | None:
        params = self.params
        if params.decorrelation.update == "none" or not params.decorrelation.block_layers:
            return None
        check_sample(params.decorrelation, self._tokens(params.batch // self.passes))
        return Decorrelator(
            self.plain_model.encoder, params.decorrelation, step_length(params), params.seed
        )

    @torch.no_grad()
    def check_eps(self, batch: Batch) -> None:
        """Refuse an eps that is too large for a batch; the function-preserving step is bounded.

        Raises:
            UserError: with the layer's name and the largest eps; or the GPU's memory is too small.
        """
        if not self.decorrelator or self.params.decorrelation.update != "paper":
            return
        with self.within_memory("the check of decorrelation.eps"):
            for part, micro_batch in self._micro_batches(self.fabric.to_device(batch)):
                with self._training_pass(part, micro_batch):
                    self.plain_model.forward(*micro_batch)  # a call would compile it, for once
            self.decorrelator.check_eps()

    def optimize(self, batch: Batch) -> Tensor:
        """Take an optimization step, then one of the decorrelating matrices, and average the weights."""
        rate = self.params.learning_rate * self.schedule
        set_learning_rate(self.optimizers, rate, self.params)
        loss = self._accumulate_gradients(batch)
        clip_gradients(self.parameters)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if self.decorrelator:
            self.decorrelator.step(self.schedule)
        self._follow()
        return loss

    @torch.no_grad()
    def _follow(self) -> None:
        """Take the weights after the present step into their average, if it is time."""
        step = self.step + 1
        if self.average and self.average.due(step):
            with self.decorrelator.products() if self.decorrelator else nullcontext():
                self.average.follow(self.plain_model, step)

    def _accumulate_gradients(self, batch: Batch) -> Tensor:
        """Set the gradients of the batch's mean loss, which is returned, over all processes."""
        accumulate = self.params.accumulate
        losses: list[Tensor] = []
        for part, micro_batch in self._micro_batches(batch):
            more = len(losses) + 1 < accumulate
            alone = self.fabric.no_backward_sync(self.model, enabled=more)
            with alone:
                with self._training_pass(part, micro_batch):
                    loss: Tensor = self.model(*micro_batch)
                self.fabric.backward(loss / accumulate)
            losses.append(loss.detach())
        return mean_over_processes(torch.stack(losses).mean())

    def _micro_batches(self, batch: Batch) -> list[tuple[int, Batch]]:
        """Return the micro-batches of a process's part, each with its place among all processes'."""
        accumulate = self.params.accumulate
        pixels, noise = (tensor.chunk(accumulate) for tensor in batch)
        first = self.fabric.global_rank * accumulate
        return list(enumerate(zip(pixels, noise, strict=True), start=first))

    @contextmanager
    def _training_pass(self, part: int, batch: Batch) -> Iterator[None]:
        """Decorrelate the forward pass in this block; W R has the format that the tokens will have."""
        if not self.decorrelator:
            yield
            return
        with (
            self.fabric.autocast(),
            self.decorrelator.training_pass(self._tokens(len(batch[0])), part),
        ):
            yield

    def _tokens(self, images: int) -> int:
        """Return the token vectors that the encoder sees of so many images."""
        return images * (1 + self.params.visible)

    def validate(self) -> dict[str, float]:
        """Return val_loss, of the averaged weights, and any decorrelation's correlation that is left.

        Its passes are as large as those of a step, so that it needs no more memory. No module here differs
        between training and evaluation.
        """
        size = self.params.batch // self.passes
        parts = zip(*(tensor.split(size) for tensor in self.validation), strict=True)
        model = self.average.model if self.average else self.plain_model
        with self.fabric.autocast():
            total = sum(len(part[0]) * float(model(*part)) for part in parts)
        columns = {"val_loss": total / len(self.validation[0])}
        if self.decorrelator:
            columns["correlation"] = self.decorrelator.correlation()
        return columns

    def broken(self) -> dict[str, int]:
        """Return the layer whose R broke first, if one did."""
        first = self.decorrelator.first_broken() if self.decorrelator else None
        return {f"R of {first[0]}": first[1] + 1} if first else {}

    @torch.no_grad()
    def constant_loss(self) -> float:
        """Return the validation loss of predicting every patch's own mean."""
        pixels, noise = self.validation
        model = self.plain_model
        _, masked = model.random_masking(noise)
        patches = select(model.patchify(model.normalize(pixels)), masked)
        return float(model.forward_loss(patches, torch.zeros_like(patches)))

    def learnt(self) -> dict[str, Any]:
        """Return the states of the model, R included, of its average and of the optimizers, and the rest."""
        return {
            "model": self.plain_model.state_dict(),
            "average": self.average and self.average.model.state_dict(),
            "optimizer": self.params.optimizer,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "correlation": self.decorrelator and self.decorrelator.last_correlation,
        }

    def load_learnt(self, state: dict[str, Any]) -> None:
        """Go on from what `learnt` returned."""
        if state["optimizer"] != self.params.optimizer:
            raise ValueError("the optimizer is another")
        self.plain_model.load_state_dict(state["model"])
        if self.average:
            if average := state.get("average"):
                self.average.model.load_state_dict(average)
            else:  # it was not averaged until now
                self.average.begin(self.plain_model)
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            for group, kept in zip(optimizer.param_groups, saved["param_groups"], strict=True):
                # `pipelines.resume` lets a training go on with another.
                kept["weight_decay"] = group["weight_decay"]
            optimizer.load_state_dict(saved)
        if self.decorrelator:
            self.decorrelator.go_on_from(self.step, state["correlation"])

    def fold(self) -> MaskedAutoencoder:
        """Return the trained network, its weights averaged, R folded in."""
        if self.average:
            return self.average.model.cpu().eval()
        if self.decorrelator:
            self.decorrelator.fold()
        fold_patches(self.plain_model.encoder.patch_embed.proj)
        return self.plain_model.cpu().eval()
