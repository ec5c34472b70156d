"""Muon whose matrices of one shape share every product, of which wide ones need fewer.

A GPU waits for the kernels of a ViT-B to be launched, and PyTorch's Muon launches some eighty a matrix.
A small network's step on a CPU had a sixth of its time in these products.
"""

import math
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

POWERS = 3
"""Iterations between two products with the whole matrix; four are too many for bfloat16."""
WIDE = 1.5
"""Columns a row from which on the factors' products cost less than those with the matrix that they save."""


class BatchedMuon(torch.optim.Muon):
    """PyTorch's Muon with Nesterov's momentum, its updates scaled to AdamW's root mean square."""

    def __init__(
        self, matrices: list[nn.Parameter], lr: float, weight_decay: float, momentum: float
    ) -> None:
        super().__init__(
            matrices,
            lr=lr,
            weight_decay=weight_decay,
            momentum=momentum,
            adjust_lr_fn="match_rms_adamw",
        )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take the step that the base class would take; without a closure."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape[matrix.shape].append((matrix, matrix.grad))
            for pairs in by_shape.values():
                matrices, gradients = map(list, zip(*pairs, strict=True))
                self._step_together(matrices, gradients, group)

    def _step_together(
        self, matrices: list[Tensor], gradients: list[Tensor], group: dict[str, Any]
    ) -> None:
        """Take a step with matrices of one shape."""
        averages = [self._average(matrix) for matrix in matrices]
        torch._foreach_lerp_(averages, gradients, 1 - group["momentum"])
        updates = torch._foreach_lerp(gradients, averages, group["momentum"])
        orthogonal = orthogonalize(
            torch.stack(updates), group["ns_coefficients"], group["ns_steps"], group["eps"]
        ).to(matrices[0].dtype)
        rate = group["lr"] * 0.2 * math.sqrt(max(matrices[0].shape))
        torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(matrices, list(orthogonal.unbind()), alpha=-rate)

    def _average(self, matrix: Tensor) -> Tensor:
        """Return the running average of a matrix's gradients."""
        state = self.state[matrix]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        average: Tensor = state["momentum_buffer"]
        return average


def orthogonalize(
    matrices: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Tensor:
    """Return about U V' of matrices U S V', (l, r, c), in bfloat16.

    Newton and Schulz's iteration X <- (a I + b X X' + c (X X')^2) X, for tall matrices of the transpose.
    Its factors are polynomials in X X', which is smaller than a wide X: so some are multiplied before X is.

    Source: K. Jordan et al., Muon: an optimizer for hidden layers in neural networks (2024).
    """
    tall = matrices.shape[1] > matrices.shape[2]
    wide = matrices.bfloat16()
    if tall:
        wide = wide.mT
    wide = wide / torch.linalg.matrix_norm(wide, keepdim=True).clamp(min=eps)
    if wide.shape[2] < WIDE * wide.shape[1]:
        for _ in range(steps):
            wide = _iterate(wide, coefficients)
    else:
        for done in range(0, steps, POWERS):
            wide = _factor(wide @ wide.mT, coefficients, min(POWERS, steps - done)) @ wide
    return wide.mT if tall else wide


def _iterate(wide: Tensor, coefficients: tuple[float, float, float]) -> Tensor:
    """Return X after one iteration."""
    a, b, c = coefficients
    product = wide @ wide.mT
    polynomial = torch.baddbmm(product, product, product, beta=b, alpha=c)
    return torch.baddbmm(wide, polynomial, wide, beta=a)


def _factor(product: Tensor, coefficients: tuple[float, float, float], iterations: int) -> Tensor:
    """Return what so many iterations multiply X by, from X X'; polynomials in it, they all commute."""
    factor = polynomial = _polynomial(product, coefficients)
    for _ in range(iterations - 1):
        product = polynomial @ product @ polynomial
        polynomial = _polynomial(product, coefficients)
        factor = polynomial @ factor
    return factor


def _polynomial(product: Tensor, coefficients: tuple[float, float, float]) -> Tensor:
    """Return a I + b P + c P^2."""
    a, b, c = coefficients
    result = torch.baddbmm(product, product, product, beta=b, alpha=c)
    result.diagonal(dim1=1, dim2=2).add_(a)
    return result
