"""Linear layers with a matrix R before them: layers of one shape share every product.

R is a parametrization of the layer's weight, A = W R, so one small product a step replaces one a
token, the model stays a plain timm ViT, and PyTorch's own call folds R away. A GPU waits for the
kernels of a ViT-B to be launched: so what needs be done for each layer is done for all at once. (The
gradients of all W of a shape come at once, too: several GPUs reduce them after the backward pass.)
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dbp_mae.params import DecorrelationParams
from dbp_mae.pretraining.decorrelation import (
    block_size,
    bounded_step,
    correlation_loss,
    gram,
    multiply_blocks,
    residual,
    split_blocks,
)
from dbp_mae.pretraining.processes import mean_over_processes


@dataclass
class LayerPass:
    """A layer's part of the training pass that runs; not on the module, whose attributes are slow to set."""

    product: Tensor | None = None
    """W R, for W does not change meanwhile."""
    inputs: Tensor | None = None
    """A sample of the vectors that the layer saw, (k, d)."""


class DecorrelatedWeight(nn.Module):
    """The parametrization A = W R of a linear layer's weight, R block-diagonal.

    `decorrelator` holds R's blocks, (n, b, b) with n b the layer's input width, from the identity.
    """

    decorrelator: Tensor

    def __init__(self, layer: nn.Linear, largest_block: int) -> None:
        super().__init__()
        block = block_size(layer.in_features, largest_block)
        identity = torch.eye(block, device=layer.weight.device)
        self.register_buffer("decorrelator", identity.repeat(layer.in_features // block, 1, 1))
        self.layer_pass = LayerPass()

    def forward(self, weight: Tensor) -> Tensor:
        """Return W R for W, (o, d); under autocast in its format, as the product with the tokens."""
        product = self.layer_pass.product
        return multiply_blocks(weight, self.decorrelator) if product is None else product


def parametrization_of(layer: nn.Linear) -> DecorrelatedWeight:
    """Return the parametrization of a decorrelated layer's weight."""
    parametrization = _parametrized(layer)[0]
    assert isinstance(parametrization, DecorrelatedWeight)
    return parametrization


class LayerGroup:
    """Decorrelated layers whose weights have one shape."""

    def __init__(self, layers: dict[str, nn.Linear]) -> None:
        self.names = list(layers)
        self.layers = list(layers.values())
        self.parametrizations = [parametrization_of(layer) for layer in self.layers]
        self.layer_passes = [
            parametrization.layer_pass for parametrization in self.parametrizations
        ]
        self.moments: Tensor | None = None
        """The sum of G over the passes observed since the last step, (l, n, b, b)."""

    @classmethod
    def by_shape(cls, layers: dict[str, nn.Linear], largest_block: int) -> list[Self]:
        """Attach an R to each layer, with blocks up to `largest_block`; group them."""
        shapes: dict[tuple[int, int], dict[str, nn.Linear]] = defaultdict(dict)
        for name, layer in layers.items():
            parametrization = DecorrelatedWeight(layer, largest_block)
            parametrize.register_parametrization(layer, "weight", parametrization)
            shapes[layer.out_features, layer.in_features][name] = layer
        return [cls(group) for group in shapes.values()]

    @property
    def weights(self) -> list[Tensor]:
        """W of each layer."""
        return [_parametrized(layer).original for layer in self.layers]

    @property
    def decorrelators(self) -> list[Tensor]:
        """R of each layer."""
        return [parametrization.decorrelator for parametrization in self.parametrizations]

    def multiply(self) -> None:
        """Form W R of all layers, until `forget`."""
        products = multiply_blocks(torch.stack(self.weights), torch.stack(self.decorrelators))
        for layer_pass, product in zip(self.layer_passes, products, strict=True):
            layer_pass.product = product

    def forget(self) -> None:
        """Let go of what `multiply` formed and of the inputs that the layers have seen."""
        for layer_pass in self.layer_passes:
            layer_pass.product = layer_pass.inputs = None

    @property
    def inputs(self) -> list[Tensor]:
        """The samples, (k, d), of the layers that saw any in the last pass."""
        return [
            layer_pass.inputs for layer_pass in self.layer_passes if layer_pass.inputs is not None
        ]

    @torch.no_grad()
    def observe(self) -> None:
        """Add the second moments of z = R x for the layers' last inputs, in the format of R."""
        inputs = torch.stack(self.inputs)  # l k d
        with torch.autocast(inputs.device.type, enabled=False):
            matrices = torch.stack(self.decorrelators)  # l n b b
            states = split_blocks(inputs.to(matrices.dtype), matrices.shape[1])
            moments = gram(states @ matrices.mT)
        self.moments = moments if self.moments is None else self.moments + moments

    def take_moments(self, passes: int) -> Tensor:
        """Return G, the mean of so many passes and of all processes, and start again from none."""
        assert self.moments is not None
        moments, self.moments = self.moments / passes, None
        return mean_over_processes(moments)

    @torch.no_grad()
    def step(self, params: DecorrelationParams, eps: float, passes: int) -> tuple[Tensor, Tensor]:
        """Move every R; return the correlation loss of each layer, and whether R's norm is finite."""
        moments = self.take_moments(passes)
        direction = residual(moments, params.kappa)
        if params.update == "paper":
            step = eps * direction
        else:
            step = bounded_step(direction, eps)
            self._compensate(step)
        matrices = torch.stack(self.decorrelators)
        moved = matrices - step @ matrices
        torch._foreach_copy_(self.decorrelators, list(moved.unbind()))
        loss = correlation_loss(moments, params.kappa).mean(1)
        return loss, torch.linalg.matrix_norm(moved).isfinite().all(1)

    def _compensate(self, steps: Tensor) -> None:
        """Move W to W (I + eps M): the R step then leaves W R as it was to second order in eps."""
        changes = multiply_blocks(torch.stack(self.weights), steps)
        torch._foreach_add_(self.weights, list(changes.unbind()))


def _parametrized(layer: nn.Linear) -> parametrize.ParametrizationList:
    assert isinstance(layer.parametrizations, nn.ModuleDict)
    weight = layer.parametrizations["weight"]
    assert isinstance(weight, parametrize.ParametrizationList)
    return weight
