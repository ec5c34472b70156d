"""The matrix R of the patch embedding: what patches look like does not change while a network learns.

So R is not learnt in steps, but found once before the first: the inverse root of the patches' second
moments, damped, as a parametrization W R of the weight like that of every other decorrelated layer. The
settings of the steps of R do not concern it.

Source for decorrelating a network's inputs too: arXiv 2407.10780.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from dbp_mae.pretraining.decorrelation import gram
from dbp_mae.pretraining.processes import mean_over_processes

DAMPING = 0.1
"""Of a normalised pixel's variance, 1. A smaller one lifts directions that hold little but noise."""


class WhitenedWeight(nn.Module):
    """The parametrization A = W R of the patch embedding's weight, (D, C, P, P)."""

    decorrelator: Tensor

    def __init__(self, decorrelator: Tensor) -> None:
        super().__init__()
        self.register_buffer("decorrelator", decorrelator)

    def forward(self, weight: Tensor) -> Tensor:
        """Return W R for W."""
        return (weight.flatten(1) @ self.decorrelator).view_as(weight)


def whiten_patches(embedding: nn.Conv2d, images: Tensor) -> None:
    """Put the R that whitens the patches of normalised images, (B, C, H, W), before a patch embedding."""
    patches = functional.unfold(images, embedding.kernel_size, stride=embedding.stride)  # B CPP N
    moments = gram(patches.transpose(1, 2).flatten(0, 1).double())
    decorrelator = mean_over_processes(inverse_root(moments)).to(embedding.weight.dtype)
    parametrize.register_parametrization(embedding, "weight", WhitenedWeight(decorrelator))


def inverse_root(moments: Tensor) -> Tensor:
    """Return (G + DAMPING I)^(-1/2) of second moments G, (d, d)."""
    values, vectors = torch.linalg.eigh(moments)
    scales = (values.clamp(min=0) + DAMPING).rsqrt()
    return (vectors * scales) @ vectors.mT


def fold_patches(embedding: nn.Conv2d) -> None:
    """Make the weight of a patch embedding W R, and the layer plain again."""
    if parametrize.is_parametrized(embedding):
        parametrize.remove_parametrizations(embedding, "weight", leave_parametrized=True)
