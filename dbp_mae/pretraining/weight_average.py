"""The average of a network's weights over its last steps: what is validated, and what a training gives.

At a high learning rate the weights move about a better place, which their average is nearer to. So a
training that is not at its end yet has the loss of one that was planned to end there
(benchmarks/notes.md).
"""

from copy import deepcopy
from operator import attrgetter

import torch
from torch import nn

from dbp_mae.pretraining.masked_autoencoder import MaskedAutoencoder


class WeightAverage:
    """A copy of a network, plain as it is before any R, that follows it.

    The weights of step s have at step t a part in proportion to a power of s / t: so their mean age is
    the same share of the steps so far, however long the training is.

    Source: T. Karras et al., Analyzing and improving the training dynamics of diffusion models
    (arXiv 2312.02696), section 3.

    Args:
        age: that share, above 0.
        every: steps from one to the next whose weights count, for each costs some time.
    """

    def __init__(self, model: MaskedAutoencoder, age: float, every: int) -> None:
        self.model = deepcopy(model).requires_grad_(False)
        self.names = [name for name, weight in model.named_parameters() if weight.requires_grad]
        self.power = 1 / age - 1
        self.every = every

    @torch.no_grad()
    def follow(self, model: nn.Module, step: int) -> None:
        """Take in the weights of `model` after so many steps, W R for a decorrelated W, if it is time."""
        if step % self.every == 0:
            share = 1 - (1 - self.every / step) ** self.power
            kept, taken = (
                [attrgetter(name)(each) for name in self.names] for each in (self.model, model)
            )
            torch._foreach_lerp_(kept, taken, share)
