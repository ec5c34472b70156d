"""Decorrelated backpropagation of a network: which layers, on which samples, at which steps."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dbp_mae.errors import UserError
from dbp_mae.params import DecorrelationParams, PretrainParams
from dbp_mae.pretraining.decorrelated_layers import LayerGroup, parametrization_of
from dbp_mae.pretraining.decorrelation import residual
from dbp_mae.training.schedule import warmup_cosine


def step_length(params: PretrainParams) -> float:
    """Return eps, the length of a step of R at the full learning rate.

    In a training of few steps it is long, and the function-preserving update shortens it.
    """
    given = params.decorrelation
    if given.eps is not None:
        return given.eps
    assert given.total_eps is not None
    moves = range(0, params.steps, given.every)
    return given.total_eps / sum(
        warmup_cosine(step, params.steps, params.warmup_steps) for step in moves
    )


class Decorrelator:
    """Decorrelates the inputs of an encoder's linear layers while the encoder trains.

    Attach it before the optimizer is made. Run the forward passes of a step, of one size each, under
    `training_pass`; call `step` after the optimizer's step, and `fold` at the end of training. Where
    torch.distributed runs, statistics are those of all processes. Nothing here waits for the device.

    Args:
        encoder: whose layers `params.block_layers` names.
        params: all but the steps' length.
        eps: that length, at the full learning rate (`step_length`).
        seed: draws the samples.
    """

    def __init__(
        self, encoder: nn.Module, params: DecorrelationParams, eps: float, seed: int
    ) -> None:
        self.params, self.eps = params, eps
        self.layers = dict(_decorrelated_layers(encoder, params))
        narrowest = min(m.in_features for m in encoder.modules() if isinstance(m, nn.Linear))
        self.groups = LayerGroup.by_shape(self.layers, params.block or narrowest)
        self.hooks = [
            layer.register_forward_pre_hook(self._keep_sample) for layer in self.layers.values()
        ]
        self.seed = seed
        self.steps = 0
        self.passes = 0
        self.sample: Tensor | None = None
        self.last_correlation: Tensor | None = None
        self.broken_at: Tensor | None = None

    @contextmanager
    def training_pass(self, tokens: int, part: int = 0) -> Iterator[None]:
        """Form every W R once for the forward pass in this block; observe a sample of its vectors.

        The sample is drawn without replacement, once for all layers. torch.compile cannot trace a
        generator: so it is drawn here, before the pass.

        Args:
            tokens: token vectors of the pass, B*L.
            part: which pass of the step this is, counted over all processes.
        """
        try:
            if self._due():
                self.sample = self._draw(tokens, part)
            with self.products():
                yield
                self._observe()
        finally:
            self.sample = None

    @contextmanager
    def products(self) -> Iterator[None]:
        """Form every W R once, for all that reads the weights in this block."""
        try:
            for group in self.groups:
                group.multiply()
            yield
        finally:
            for group in self.groups:
                group.forget()

    def step(self, scale: float = 1.0) -> None:
        """Move every R by eps * `scale`, on what was observed since the last step, if one is due.

        Raises:
            RuntimeError: no forward pass was observed in every layer.
        """
        if self._due():
            if not self.passes:
                raise RuntimeError(
                    "Run the forward passes of a step under Decorrelator.training_pass."
                )
            eps = self.eps * scale
            steps = [group.step(self.params, eps, self.passes) for group in self.groups]
            self.last_correlation, finite = map(torch.cat, zip(*steps, strict=True))
            self._note_broken(finite)
        self.passes = 0
        self.steps += 1

    def correlation(self) -> float:
        """Return the correlation loss, averaged over the layers, of the last step's sample (syncs)."""
        return (
            float("nan") if self.last_correlation is None else float(self.last_correlation.mean())
        )

    def first_broken(self) -> tuple[str, int] | None:
        """Return the layer whose R first was not finite, and after which step, from 0 (syncs)."""
        if self.broken_at is None:
            return None
        names = [name for group in self.groups for name in group.names]
        steps = dict(zip(names, self.broken_at.tolist(), strict=True))
        name = min(self.layers, key=steps.__getitem__)
        return (name, int(steps[name])) if math.isfinite(steps[name]) else None

    @torch.no_grad()
    def check_eps(self) -> None:
        """Refuse an eps too large for what was observed since the last step, and forget that (syncs).

        With eps times the largest eigenvalue of M above 2, I - eps M makes larger what it should make
        smaller, and the published update diverges.

        Raises:
            UserError: with the layer's name and the largest eps for it.
        """
        largest: dict[str, float] = {}
        for group in self.groups:
            direction = residual(group.take_moments(self.passes), self.params.kappa)
            eigenvalues = torch.linalg.eigvalsh(direction)
            largest |= zip(group.names, eigenvalues.flatten(1).amax(1).tolist(), strict=True)
        self.passes = 0
        name = max(largest, key=largest.__getitem__)
        if self.eps * largest[name] >= 2:
            key = "eps" if self.params.eps is not None else "total_eps"
            value = getattr(self.params, key)
            share = 2 / (self.eps * largest[name])
            raise UserError(
                f"pretrain.decorrelation.{key} ({value:g}) is too large for the inputs of {name}, whose R "
                f"would diverge: use less than {share * value:.2g}, or the function-preserving update, "
                "whose step is bounded."
            )

    def go_on_from(self, step: int, correlation: Tensor | None) -> None:
        """Go on after so many steps, every R and the last correlation being as they were then."""
        self.steps, self.last_correlation, self.broken_at = step, correlation, None

    def fold(self) -> None:
        """Make every weight W R, and the layers plain again."""
        for hook in self.hooks:
            hook.remove()
        for layer in self.layers.values():
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)

    def _observe(self) -> None:
        """Add the last pass to the statistics, if a sample went through every layer."""
        if all(len(group.inputs) == len(group.layers) for group in self.groups):
            for group in self.groups:
                group.observe()
            self.passes += 1

    def _due(self) -> bool:
        return self.steps % self.params.every == 0

    def _note_broken(self, finite: Tensor) -> None:
        """Keep, for each layer, the first step whose R is not finite; infinity where there is none."""
        now = torch.where(finite, torch.inf, float(self.steps))
        self.broken_at = now if self.broken_at is None else torch.minimum(self.broken_at, now)

    def _keep_sample(self, layer: nn.Linear, inputs: tuple[Tensor]) -> None:
        if self.sample is not None:
            tokens = inputs[0].detach().flatten(0, -2)  # B*L d
            parametrization_of(layer).layer_pass.inputs = tokens.index_select(0, self.sample)

    def _draw(self, tokens: int, part: int) -> Tensor:
        """Return the indices of the token vectors sampled in a pass of this step."""
        device = self.groups[0].decorrelators[0].device
        (seed,) = np.random.SeedSequence([self.seed, self.steps, part]).generate_state(1, np.uint64)
        generator = torch.Generator(device).manual_seed(int(seed))
        order = torch.randperm(tokens, generator=generator, device=device)
        return order[: max(1, round(tokens * self.params.sample))]


def _decorrelated_layers(
    encoder: nn.Module, params: DecorrelationParams
) -> Iterator[tuple[str, nn.Linear]]:
    """Yield the linear layers of the encoder's blocks that `params` names."""
    for name, layer in encoder.named_modules():
        if isinstance(layer, nn.Linear) and name.rpartition(".")[2] in params.block_layers:
            yield name, layer


def check_sample(params: DecorrelationParams, tokens: int) -> None:
    """Refuse a sample below one token vector.

    Raises:
        UserError: `params.sample` of `tokens` is less than one.
    """
    if params.sample * tokens < 1:
        raise UserError(
            f"pretrain.decorrelation.sample ({params.sample}) of {tokens} token vectors a pass is less "
            f"than one: use at least {math.ceil(1e4 / tokens) / 1e4:g}."
        )
