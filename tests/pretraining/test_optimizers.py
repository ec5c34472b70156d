"""The optimizers of pre-training: which weights learn at which rate."""

import math

import pytest
import torch
from tiny import start, step, tiny_params
from torch import Tensor

from dbp_mae.pretraining.optimizers import is_hidden_matrix

needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has it since 2.9")


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


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "soap"])
@pytest.mark.parametrize("update", ["none", "function-preserving"])
def test_all_decay_but_biases_and_norms(optimizer: str, update: str) -> None:
    training, _ = start(tiny_params(optimizer=optimizer, update=update, weight_decay=0.05))
    decay = {
        weight: group["weight_decay"]
        for part in training.optimizers
        for group in part.param_groups
        for weight in group["params"]
    }
    weights = dict(training.plain_model.named_parameters())
    trained = {name: weight for name, weight in weights.items() if weight.requires_grad}
    assert {name: decay[weight] for name, weight in trained.items()} == {
        name: 0.0 if name.endswith("bias") or "norm" in name else 0.05 for name in trained
    }


def iterated(matrices: torch.Tensor) -> torch.Tensor:
    """Return what five steps of Newton and Schulz make of matrices, in float64."""
    matrices = matrices.double()
    matrices /= torch.linalg.matrix_norm(matrices, keepdim=True)
    for _ in range(5):
        product = matrices @ matrices.mT
        matrices = 3.4445 * matrices + (-4.775 * product + 2.0315 * product @ product) @ matrices
    return matrices


@needs_muon
@pytest.mark.parametrize("columns", [32, 47, 48, 128])
@pytest.mark.parametrize("condition", [1e1, 1e2, 1e3])
def test_fewer_products_of_wide_matrices_give_the_same(columns: int, condition: float) -> None:
    from dbp_mae.pretraining.muon import orthogonalize

    random = torch.randn(3, 32, columns, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(random, full_matrices=False)
    matrices = left * torch.logspace(0, -math.log10(condition), 32) @ right
    found = orthogonalize(matrices, (3.4445, -4.775, 2.0315), 5, 1e-7)
    exact = iterated(matrices)
    assert (found - exact).norm() < 0.15 * exact.norm()


@needs_muon
def test_muon_in_batches_is_pytorchs_muon() -> None:
    from dbp_mae.pretraining.muon import BatchedMuon

    generator = torch.Generator().manual_seed(0)
    shapes = [(24, 8), (8, 24), (8, 8), (24, 8)]
    start = [torch.randn(shape, generator=generator) for shape in shapes]
    ours, theirs = ([torch.nn.Parameter(weight.clone()) for weight in start] for _ in range(2))
    settings = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.9}
    optimizers = [
        BatchedMuon(ours, **settings),
        torch.optim.Muon(theirs, adjust_lr_fn="match_rms_adamw", **settings),
    ]
    for count in range(4):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        if count == 2:
            ours[2].grad = theirs[2].grad = None
        for optimizer in optimizers:
            optimizer.step()
    for one, other, before in zip(ours, theirs, start, strict=True):
        # The products of wide ones are others, and bfloat16 rounds them.
        bound = 1e-2 if one.shape[0] == one.shape[1] else 5e-2
        assert (one - other).norm() < bound * (other - before).norm()
    states = [optimizer.state_dict()["state"] for optimizer in optimizers]
    assert states[0].keys() == states[1].keys()
    assert states[0][0].keys() == states[1][0].keys()
