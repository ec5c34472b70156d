"""The optimizers of pre-training by name."""

import torch
from torch import nn
from torch.optim import Optimizer

from dbp_mae.errors import UserError
from dbp_mae.params import PretrainParams

BETAS = (0.9, 0.95)
"""AdamW's, as in the paper's pre-training setting (arXiv 2111.06377, table 8)."""
MOMENTUM = 0.9
"""Muon's. Over some hundred steps its usual 0.95 learns more slowly (benchmarks/notes.md)."""


def create_optimizers(model: nn.Module, params: PretrainParams) -> list[Optimizer]:
    """Create AdamW for all parameters, or another for the blocks' matrices and AdamW for the rest.

    Only matrices and tokens decay. Muon's updates are scaled to AdamW's root mean square
    (arXiv 2502.16982); SOAP's (arXiv 2409.11321) are so by themselves. Yet Muon learns best at several
    times the rate that suits AdamW: hence `params.rest_rate`, the factor for what it leaves to AdamW.

    Raises:
        UserError: `muon` with a torch that does not have it, or `soap` without its package.
    """
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    matrices = {name: weight for name, weight in trained.items() if weight.ndim >= 2}
    hidden = {name: weight for name, weight in matrices.items() if is_hidden_matrix(name, weight)}
    vectors = [weight for name, weight in trained.items() if name not in matrices]
    if params.optimizer == "adamw":
        return [_adamw(list(matrices.values()), vectors, params)]
    others = [weight for name, weight in matrices.items() if name not in hidden]
    create = _muon if params.optimizer == "muon" else _soap
    return [create(list(hidden.values()), params), _adamw(others, vectors, params)]


def is_hidden_matrix(name: str, weight: nn.Parameter) -> bool:
    """Tell whether a parameter is a weight matrix inside a transformer block."""
    return weight.ndim == 2 and "blocks." in name


def set_learning_rate(optimizers: list[Optimizer], rate: float, params: PretrainParams) -> None:
    """Give all parameters the learning rate `rate`, but what Muon leaves to AdamW its factor of it."""
    factors = (1.0, params.rest_rate) if params.optimizer == "muon" else (1.0, 1.0)
    for optimizer, factor in zip(optimizers, factors, strict=False):  # AdamW may be alone
        for group in optimizer.param_groups:
            group["lr"] = rate * factor


def _muon(matrices: list[nn.Parameter], params: PretrainParams) -> Optimizer:
    if not hasattr(torch.optim, "Muon"):
        raise UserError(
            f"pretrain.optimizer is muon, which torch {torch.__version__} does not have: use adamw, "
            "or torch 2.9 or later."
        )
    from dbp_mae.pretraining.muon import BatchedMuon  # its base class may be missing

    return BatchedMuon(matrices, params.learning_rate, params.weight_decay, MOMENTUM)


def _soap(matrices: list[nn.Parameter], params: PretrainParams) -> Optimizer:
    try:
        from pytorch_optimizer import SOAP
    except ImportError:
        raise UserError(
            "pretrain.optimizer is soap, which the package pytorch_optimizer has: install it, or use "
            "adamw or muon."
        ) from None
    return SOAP(matrices, lr=params.learning_rate, weight_decay=params.weight_decay)


def _adamw(
    matrices: list[nn.Parameter], vectors: list[nn.Parameter], params: PretrainParams
) -> Optimizer:
    groups = [
        {"params": matrices, "weight_decay": params.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=params.learning_rate, betas=BETAS, fused=True)
