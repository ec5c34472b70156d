"""The average of a network's weights over its last steps: what is validated, and what a training gives.

At a high learning rate the weights move about a better place, which their average is nearer to. So a
training that is not at its end yet has the loss of one that was planned to end there
(benchmarks/notes.md).
"""

from copy import deepcopy
from operator import attrgetter

import torch
from torch import nn

from dbp_mae.params import PretrainParams
from dbp_mae.pretraining.masked_autoencoder import MaskedAutoencoder

AVERAGED = 100
"""Steps whose weights count in a training's average; of a short training fewer, for they cost time."""
LEAST_EVERY = 4
"""Steps from one of them to the next, unless validations come sooner."""


class WeightAverage:
    """A plain copy of a network that follows it; made before any R, whose weights have other names.

    The weights of step s have at step t a part in proportion to a power of s / t: so their mean age is
    the same share of the steps so far, however long the training is; less while few were taken in.

    Source: T. Karras et al., Analyzing and improving the training dynamics of diffusion models
    (arXiv 2312.02696), section 3.

    Args:
        age: that share, above 0.
        every: steps from one to the next whose weights count, for each costs some time.
        steps: of the training, whose last one counts, too.
    """

    def __init__(self, model: MaskedAutoencoder, age: float, every: int, steps: int) -> None:
        self.model = deepcopy(model).requires_grad_(False)
        names = [name for name, weight in model.named_parameters() if weight.requires_grad]
        self.weights_of = attrgetter(*names)
        self.exponent = 1 / age - 1
        self.every, self.steps = every, steps

    def due(self, step: int) -> bool:
        """Tell whether the weights after so many steps count."""
        return step % self.every == 0 or step == self.steps

    def follow(self, model: nn.Module, step: int) -> None:
        """Take in the weights of `model` after so many steps, W R for a decorrelated W."""
        since = step % self.every or self.every
        self._move(model, share=1 - (1 - since / step) ** self.exponent)

    def begin(self, model: nn.Module) -> None:
        """Forget what was taken in; the average is the weights of `model`."""
        self._move(model, share=1.0)

    @torch.no_grad()
    def _move(self, model: nn.Module, share: float) -> None:
        torch._foreach_lerp_(self.weights_of(self.model), self.weights_of(model), share)


def create_average(model: MaskedAutoencoder, params: PretrainParams) -> WeightAverage | None:
    """Return the average of a network's weights before its first step; None where none is wanted."""
    if params.averaging == 0:
        return None
    every = min(params.validate_every, max(LEAST_EVERY, params.steps // AVERAGED))
    return WeightAverage(model, params.averaging, every, params.steps)
