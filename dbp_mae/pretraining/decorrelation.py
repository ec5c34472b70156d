"""Decorrelated backpropagation: a matrix R before each encoder layer decorrelates the layer's inputs.

The layer computes y = W (R x). R has no gradient; after each optimizer step it moves against the
correlations of its own output z = R x, measured on a sample of the token vectors:

    G = Z'Z / k        M = (1 - kappa) offdiag(G) + kappa (diag(G) - I)        R <- R - eps M R

R is a parametrization of the layer's weight, A = W R, so one small product a step replaces one a
token, the model stays a plain timm ViT, and PyTorch's own call folds R away.

Sources: arXiv 2510.14657 (the method on Vision Transformers), arXiv 2405.02385 and arXiv 2407.10780.
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dbp_mae.errors import UserError
from dbp_mae.params import DecorrelationParams
from dbp_mae.pretraining.processes import mean_over_processes


def gram(states: Tensor) -> Tensor:
    """Return the uncentred second moments G = Z'Z / k of Z, (..., k, d), as (..., d, d)."""
    return states.mT @ states / states.shape[-2]


def residual(moments: Tensor, kappa: float) -> Tensor:
    """Return M = (1 - kappa) offdiag(G) + kappa (diag(G) - I) of second moments G, (..., d, d)."""
    direction = (1 - kappa) * moments
    variances = torch.diagonal(moments, dim1=-2, dim2=-1)
    torch.diagonal(direction, dim1=-2, dim2=-1).copy_(kappa * (variances - 1))
    return direction


def correlation_loss(moments: Tensor, kappa: float) -> Tensor:
    """Return ((1 - kappa) sum C^2 + kappa sum V^2) / d^2 of second moments G, (..., d, d), as (...)."""
    variances = torch.diagonal(moments, dim1=-2, dim2=-1)
    correlations = torch.linalg.matrix_norm(moments).square() - variances.square().sum(-1)
    deviations = (variances - 1).square().sum(-1)
    return ((1 - kappa) * correlations + kappa * deviations) / moments.shape[-1] ** 2


LONGEST_STEP = 0.5
"""Of |eps M|: R keeps at least half of every direction, and W R at least three quarters."""


def bounded_step(direction: Tensor, eps: float) -> Tensor:
    """Return eps M, shortened to the norm LONGEST_STEP where it is longer.

    The Frobenius norm bounds the largest eigenvalue from above and needs no decomposition.
    """
    step = eps * direction
    norm = torch.linalg.matrix_norm(step, keepdim=True)
    return step / (norm / LONGEST_STEP).clamp(min=1)


class DecorrelatedWeight(nn.Module):
    """The parametrization A = W R of a linear layer's weight, R block-diagonal.

    `decorrelator` holds R's blocks, (n, b, b) with n b the layer's input width, from the identity;
    `moments` the sum of G over the forward passes observed since the last step, likewise.
    """

    decorrelator: Tensor
    moments: Tensor

    def __init__(self, width: int, block: int) -> None:
        super().__init__()
        blocks = width // block
        self.register_buffer("decorrelator", torch.eye(block).repeat(blocks, 1, 1))
        self.register_buffer("moments", torch.zeros(blocks, block, block), persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        """Return W R for W, (o, d); under autocast in its format, as the product with the tokens."""
        return multiply_blocks(weight, self.decorrelator)

    def observe(self, inputs: Tensor) -> None:
        """Add the second moments of z = R x for inputs x, (k, d), in the format of R."""
        with torch.autocast(inputs.device.type, enabled=False):
            blocks = inputs.to(self.decorrelator.dtype).unflatten(1, self.decorrelator.shape[:2])
            self.moments += gram(blocks.transpose(0, 1) @ self.decorrelator.mT)  # n k b


def multiply_blocks(weight: Tensor, blocks: Tensor) -> Tensor:
    """Return the product of W, (o, d), with a block-diagonal matrix given as (n, b, b)."""
    columns = weight.unflatten(1, blocks.shape[:2]).transpose(0, 1)  # n o b
    return (columns @ blocks).transpose(0, 1).flatten(1)


def block_size(width: int, largest: int) -> int:
    """Return the largest divisor of `width` that is at most `largest`."""
    return next(size for size in range(min(width, largest), 0, -1) if width % size == 0)


class Decorrelator:
    """Decorrelates the inputs of an encoder's linear layers while the encoder trains.

    Attach it before the optimizer is made. Run the forward passes of a step, of one size each, under
    `sampling`; call `step` after the optimizer's step, and `fold` at the end of training. Where
    torch.distributed runs, statistics are those of all processes. Nothing here waits for the device.
    """

    def __init__(self, encoder: nn.Module, params: DecorrelationParams, seed: int) -> None:
        self.params = params
        self.layers = dict(_decorrelated_layers(encoder, params))
        narrowest = min(m.in_features for m in encoder.modules() if isinstance(m, nn.Linear))
        for layer in self.layers.values():
            block = block_size(layer.in_features, params.block or narrowest)
            parametrization = DecorrelatedWeight(layer.in_features, block)
            parametrize.register_parametrization(layer, "weight", parametrization)
            layer.register_forward_pre_hook(self._observe)
        self.groups = self._names_by_shape()
        self.seed = seed
        self.steps = 0
        self.passes = 0
        self.sample: Tensor | None = None
        self.last_correlation: Tensor | None = None
        self.broken_at: Tensor | None = None

    @contextmanager
    def sampling(self, tokens: int, part: int = 0) -> Iterator[None]:
        """Observe a sample of the token vectors of the forward pass in this block.

        The sample is drawn without replacement, once for all layers. torch.compile cannot trace a
        generator: so it is drawn here, before the pass.

        Args:
            tokens: token vectors of the pass, B*L.
            part: which pass of the step this is, counted over all processes.
        """
        if self._due():
            self.sample = self._draw(tokens, part)
            self.passes += 1
        try:
            yield
        finally:
            self.sample = None

    @torch.no_grad()
    def step(self, scale: float = 1.0) -> None:
        """Move every R by eps * `scale`, on what was observed since the last step, if one is due.

        Raises:
            RuntimeError: no forward pass was observed.
        """
        if self._due():
            if not self.passes:
                raise RuntimeError("Run the forward passes of a step under Decorrelator.sampling.")
            updates = [
                self._update([self.layers[name] for name in names], self.params.eps * scale)
                for names in self.groups
            ]
            self.last_correlation, finite = map(torch.cat, zip(*updates, strict=True))
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
        names = [name for group in self.groups for name in group]
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
        for names in self.groups:
            moments = self._take_moments([self.layers[name] for name in names])
            eigenvalues = torch.linalg.eigvalsh(residual(moments, self.params.kappa))
            largest |= zip(names, eigenvalues.flatten(1).amax(1).tolist(), strict=True)
        self.passes = 0
        name = max(largest, key=largest.__getitem__)
        if self.params.eps * largest[name] >= 2:
            raise UserError(
                f"pretrain.decorrelation.eps ({self.params.eps}) is too large for the inputs of "
                f"{name}, whose R would diverge: use less than {2 / largest[name]:.2g}, or the "
                "function-preserving update, whose step is bounded."
            )

    def go_on_from(self, step: int) -> None:
        """Go on after so many steps, every R being as it was then."""
        self.steps, self.last_correlation, self.broken_at = step, None, None

    def fold(self) -> None:
        """Make every weight W R, and the layers plain again."""
        for layer in self.layers.values():
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
            layer._forward_pre_hooks.clear()

    def _due(self) -> bool:
        return self.steps % self.params.every == 0

    def _note_broken(self, finite: Tensor) -> None:
        """Keep, for each layer, the first step whose R is not finite; infinity where there is none."""
        now = torch.where(finite, torch.inf, float(self.steps))
        self.broken_at = now if self.broken_at is None else torch.minimum(self.broken_at, now)

    def _observe(self, layer: nn.Linear, inputs: tuple[Tensor]) -> None:
        if self.sample is not None:
            tokens = inputs[0].detach().flatten(0, -2)  # B*L d
            _parametrization(layer).observe(tokens[self.sample])

    def _draw(self, tokens: int, part: int) -> Tensor:
        """Return the indices of the token vectors sampled in a pass of this step."""
        device = _parametrization(next(iter(self.layers.values()))).decorrelator.device
        (seed,) = np.random.SeedSequence([self.seed, self.steps, part]).generate_state(1, np.uint64)
        generator = torch.Generator(device).manual_seed(int(seed))
        order = torch.randperm(tokens, generator=generator, device=device)
        return order[: max(1, round(tokens * self.params.sample))]

    def _names_by_shape(self) -> list[list[str]]:
        """Group the layers whose R have one shape, so that they share products."""
        groups: dict[torch.Size, list[str]] = defaultdict(list)
        for name, layer in self.layers.items():
            groups[_parametrization(layer).decorrelator.shape].append(name)
        return list(groups.values())

    def _update(self, layers: list[nn.Linear], eps: float) -> tuple[Tensor, Tensor]:
        """Move the R of layers of one shape; return the correlation loss of each, and if R is finite."""
        kappa = self.params.kappa
        moments = self._take_moments(layers)  # l n b b
        direction = residual(moments, kappa)
        if self.params.update == "paper":
            step = eps * direction
        else:
            step = bounded_step(direction, eps)
            self._compensate(layers, step)
        matrices = [_parametrization(layer).decorrelator for layer in layers]
        stacked = torch.stack(matrices)
        moved = stacked - step @ stacked
        torch._foreach_copy_(matrices, list(moved.unbind()))
        return correlation_loss(moments, kappa).mean(1), moved.isfinite().flatten(1).all(1)

    def _take_moments(self, layers: list[nn.Linear]) -> Tensor:
        """Return G of layers of one shape, (l, n, b, b), over all passes, and start again from zero."""
        sums = [_parametrization(layer).moments for layer in layers]
        moments = mean_over_processes(torch.stack(sums) / self.passes)
        torch._foreach_zero_(sums)
        return moments

    @staticmethod
    def _compensate(layers: list[nn.Linear], steps: Tensor) -> None:
        """Move W to W (I + eps M): the R step then leaves W R as it was to second order in eps."""
        for layer, step in zip(layers, steps, strict=True):
            weight = _parametrized(layer).original
            assert isinstance(weight, nn.Parameter)
            weight.add_(multiply_blocks(weight, step))


def _decorrelated_layers(
    encoder: nn.Module, params: DecorrelationParams
) -> Iterator[tuple[str, nn.Linear]]:
    """Yield the linear layers of the encoder's blocks that `params` names."""
    for name, layer in encoder.named_modules():
        if isinstance(layer, nn.Linear) and name.rpartition(".")[2] in params.layers:
            yield name, layer


def _parametrization(layer: nn.Linear) -> DecorrelatedWeight:
    parametrization = _parametrized(layer)[0]
    assert isinstance(parametrization, DecorrelatedWeight)
    return parametrization


def _parametrized(layer: nn.Linear) -> parametrize.ParametrizationList:
    assert isinstance(layer.parametrizations, nn.ModuleDict)
    weight = layer.parametrizations["weight"]
    assert isinstance(weight, parametrize.ParametrizationList)
    return weight


def check_sample(params: DecorrelationParams, tokens: int) -> None:
    """Refuse a sample below one token vector.

    Raises:
        UserError: `params.sample` of `tokens` is less than one.
    """
    if params.sample * tokens < 1:
        raise UserError(
            f"pretrain.decorrelation.sample ({params.sample}) of {tokens} token vectors a step is less "
            f"than one: use at least {1 / tokens:.4f}."
        )
