"""Decorrelated backpropagation: a matrix R before each encoder layer decorrelates the layer's inputs.

The layer computes y = W (R x). R has no gradient; after each optimizer step it moves against the
correlations of its own output z = R x, measured on a sample of the token vectors:

    G = Z'Z / k        M = (1 - kappa) offdiag(G) + kappa (diag(G) - I)        R <- R - eps M R

R is a parametrization of the layer's weight, A = W R, so one small product a step replaces one a
token, the model stays a plain timm ViT, and PyTorch's own call folds R away.

Sources: arXiv 2510.14657 (the method on Vision Transformers), arXiv 2405.02385 and arXiv 2407.10780.
"""

from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dbp_mae.errors import UserError
from dbp_mae.params import DecorrelationParams


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


def bounded_step(direction: Tensor, eps: float) -> Tensor:
    """Return eps M, shortened where eps |M| > 1 so that no eigenvalue of M makes R diverge.

    The Frobenius norm bounds the largest eigenvalue from above and needs no decomposition.
    """
    step = eps * direction
    return step / torch.linalg.matrix_norm(step, keepdim=True).clamp(min=1)


class DecorrelatedWeight(nn.Module):
    """The parametrization A = W R of a linear layer's weight, R block-diagonal.

    `decorrelator` holds R's blocks, (n, b, b) with n b the layer's input width, from the identity.
    """

    decorrelator: Tensor

    def __init__(self, width: int, block: int) -> None:
        super().__init__()
        blocks = width // block
        self.register_buffer("decorrelator", torch.eye(block).repeat(blocks, 1, 1))

    def forward(self, weight: Tensor) -> Tensor:
        """Return W R for W, (o, d)."""
        return multiply_blocks(weight, self.decorrelator)


def multiply_blocks(weight: Tensor, blocks: Tensor) -> Tensor:
    """Return the product of W, (o, d), with a block-diagonal matrix given as (n, b, b)."""
    columns = weight.unflatten(1, blocks.shape[:2]).transpose(0, 1)  # n o b
    return (columns @ blocks).transpose(0, 1).flatten(1)


def block_size(width: int, largest: int) -> int:
    """Return the largest divisor of `width` that is at most `largest`."""
    return next(size for size in range(min(width, largest), 0, -1) if width % size == 0)


class Decorrelator:
    """Decorrelates the inputs of an encoder's linear layers while the encoder trains.

    Attach it before the optimizer is made. Call `step` after each optimizer step, and `fold` at the
    end of training. The sample of a step is drawn without replacement, once for all layers, on the
    device; nothing here waits for the device.
    """

    def __init__(self, encoder: nn.Module, params: DecorrelationParams, seed: int) -> None:
        self.params = params
        self.layers = dict(_decorrelated_layers(encoder, params))
        narrowest = min(m.in_features for m in encoder.modules() if isinstance(m, nn.Linear))
        for layer in self.layers.values():
            block = block_size(layer.in_features, params.block or narrowest)
            parametrization = DecorrelatedWeight(layer.in_features, block)
            parametrize.register_parametrization(layer, "weight", parametrization)
            layer.register_forward_pre_hook(self._sample_inputs)
        self.seed = seed
        self.steps = 0
        self.inputs: dict[nn.Module, Tensor] = {}
        self.chosen: dict[int, Tensor] = {}
        self.last_correlation: Tensor | None = None

    @torch.no_grad()
    def step(self, scale: float = 1.0) -> None:
        """Move every R by eps * `scale`, on the inputs seen since the last step."""
        if self.inputs:
            losses = [
                self._update(layers, self.params.eps * scale)
                for layers in self._layers_by_shape().values()
            ]
            self.last_correlation = torch.cat(losses)
        self.inputs.clear()
        self.chosen.clear()
        self.steps += 1

    def correlation(self) -> float:
        """Return the correlation loss, averaged over the layers, of the last step's sample (syncs)."""
        return (
            float("nan") if self.last_correlation is None else float(self.last_correlation.mean())
        )

    def fold(self) -> None:
        """Make every weight W R, and the layers plain again."""
        for layer in self.layers.values():
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
            layer._forward_pre_hooks.clear()

    def _sample_inputs(self, layer: nn.Linear, inputs: tuple[Tensor]) -> None:
        if not layer.training or self.steps % self.params.every:
            return
        tokens = inputs[0].detach().flatten(0, -2)  # B*L d
        chosen = tokens[self._choose(len(tokens), tokens.device)]
        self.inputs[layer] = chosen.to(_parametrization(layer).decorrelator.dtype)

    def _choose(self, tokens: int, device: torch.device) -> Tensor:
        """Return the indices of the tokens sampled in this step."""
        if tokens not in self.chosen:
            generator = torch.Generator(device).manual_seed(self.seed * 1_000_003 + self.steps)
            order = torch.randperm(tokens, generator=generator, device=device)
            self.chosen[tokens] = order[: max(1, round(tokens * self.params.sample))]
        return self.chosen[tokens]

    def _layers_by_shape(self) -> dict[tuple[int, ...], list[nn.Linear]]:
        """Group the sampled layers whose R and sample have one shape, so that they share products."""
        groups: dict[tuple[int, ...], list[nn.Linear]] = defaultdict(list)
        for layer in self.layers.values():
            if layer in self.inputs:
                shape = (*_parametrization(layer).decorrelator.shape, len(self.inputs[layer]))
                groups[shape].append(layer)
        return groups

    def _update(self, layers: list[nn.Linear], eps: float) -> Tensor:
        """Move the R of layers of one shape; return the correlation loss of each."""
        kappa = self.params.kappa
        matrices = [_parametrization(layer).decorrelator for layer in layers]
        stacked = torch.stack(matrices)  # l n b b
        inputs = torch.stack([self.inputs[layer] for layer in layers])  # l k d
        with torch.autocast(inputs.device.type, enabled=False):
            blocks = inputs.unflatten(2, stacked.shape[1:3]).transpose(1, 2)  # l n k b
            moments = gram(blocks @ stacked.mT)
            direction = residual(moments, kappa)
            if self.params.update == "paper":
                step = eps * direction
            else:
                step = bounded_step(direction, eps)
                self._compensate(layers, step)
            torch._foreach_copy_(matrices, list((stacked - step @ stacked).unbind()))
        return correlation_loss(moments, kappa).mean(1)

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
