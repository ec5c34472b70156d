"""The optimizers of pre-training: which weights learn at which rate."""

import pytest
import torch
from tiny import start, step, tiny_params
from torch import Tensor

from dbp_mae.pretraining.optimizers import is_hidden_matrix


def first_step(optimizer: str, rest_rate: float) -> dict[str, Tensor]:
    """Return by how much the first step moves each trained weight."""
    training, batches = start(tiny_params(optimizer=optimizer, rest_rate=rest_rate, update="none"))
    weights = {
        name: weight
        for name, weight in training.plain_model.named_parameters()
        if weight.requires_grad
    }
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    step(training, batches)
    return {name: weight.detach() - before[name] for name, weight in weights.items()}


@pytest.mark.parametrize(("optimizer", "rest"), [("muon", 0.25), ("adamw", 1.0)])
def test_rest_rate_is_for_what_muon_leaves_to_adamw(optimizer: str, rest: float) -> None:
    whole, share = first_step(optimizer, 1.0), first_step(optimizer, 0.25)
    for name, moved in whole.items():
        factor = 1.0 if is_hidden_matrix(name, torch.nn.Parameter(moved)) else rest
        torch.testing.assert_close(share[name], factor * moved, rtol=1e-3, atol=1e-7)
