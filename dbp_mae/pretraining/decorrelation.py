"""Decorrelated backpropagation: a matrix R before each encoder layer decorrelates the layer's inputs.

The layer computes y = W (R x). R has no gradient; after each optimizer step it moves against the
correlations of its own output z = R x, measured on a sample of the token vectors:

    G = Z'Z / k        M = (1 - kappa) offdiag(G) + kappa (diag(G) - I)        R <- R - eps M R

Here are the equations alone; `decorrelator` applies them to a network.

Sources: arXiv 2510.14657 (the method on Vision Transformers), arXiv 2405.02385 and arXiv 2407.10780.
"""

import torch
from torch import Tensor


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
    norm = torch.linalg.matrix_norm(direction, keepdim=True)
    return direction * (LONGEST_STEP / norm).clamp(max=eps)


def multiply_blocks(weights: Tensor, blocks: Tensor) -> Tensor:
    """Return the product of W, (..., o, d), with a block-diagonal matrix given as (..., n, b, b)."""
    columns = split_blocks(weights, blocks.shape[-3])
    return (columns @ blocks).transpose(-3, -2).flatten(-2)


def split_blocks(states: Tensor, blocks: int) -> Tensor:
    """Return vectors, (..., k, d), as those that the blocks of R see: (..., n, k, b)."""
    return states.unflatten(-1, (blocks, -1)).transpose(-3, -2)


def block_size(width: int, largest: int) -> int:
    """Return the largest divisor of `width` that is at most `largest`."""
    return next(size for size in range(min(width, largest), 0, -1) if width % size == 0)
