"""The decorrelation update against its equations, and what must hold whatever the data."""

import pytest
import torch
from small_encoder import (
    PARAMS,
    Encoder,
    correlated_tokens,
    decorrelated,
    decorrelator_of,
    loop_over_equations,
    matrix,
    observe,
    original,
    underway,
    watch_inputs,
)
from torch import Tensor, nn
from torch.func import functional_call

from dbp_mae.pretraining.decorrelation import (
    block_size,
    correlation_loss,
    gram,
    multiply_blocks,
    residual,
)


@pytest.mark.parametrize("block", [20, 6, 5])  # 5 does not divide 12, nor 6 20: blocks of 4 and 5
@pytest.mark.parametrize("update", ["paper", "function-preserving"])
def test_every_block_of_every_layer_follows_the_equations(update: str, block: int) -> None:
    encoder, decorrelator = underway(update=update, block=block)
    tokens = correlated_tokens(30)
    seen = watch_inputs(encoder)
    for _ in range(2):
        before = {name: state(layer) for name, layer in encoder.layers.items()}
        observe(encoder, decorrelator, tokens)
        decorrelator.step()
        losses = []
        for name, layer in encoder.layers.items():
            matrices, weight = before[name]
            moved, compensated = state(layer)
            size = matrices.shape[-1]
            assert size == block_size(layer.in_features, block)
            for index, r in enumerate(matrices):
                columns = slice(index * size, (index + 1) * size)
                states = seen[layer][:, columns].detach().double() @ r.T
                expected, loss = loop_over_equations(states, r, PARAMS.eps, PARAMS.kappa)
                torch.testing.assert_close(moved[index], expected, atol=1e-6, rtol=1e-6)
                eps_m = (r - expected) @ r.inverse() if update != "paper" else torch.zeros_like(r)
                expected = weight[:, columns] @ (torch.eye(size) + eps_m)
                torch.testing.assert_close(compensated[:, columns], expected, atol=1e-6, rtol=1e-6)
                losses.append(loss / len(matrices))
        assert decorrelator.correlation() == pytest.approx(sum(losses) / 3, rel=1e-4)


def state(layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """Return R's blocks and W, in float64."""
    return decorrelator_of(layer).double(), original(layer).detach().double()


def test_pure_functions_work_on_stacks() -> None:
    states = torch.randn(2, 3, 40, 5, generator=torch.Generator().manual_seed(0))
    moments = gram(states)
    for index in ((0, 0), (1, 2)):
        torch.testing.assert_close(moments[index], gram(states[index]))
        torch.testing.assert_close(residual(moments, 0.2)[index], residual(moments[index], 0.2))
        torch.testing.assert_close(
            correlation_loss(moments, 0.2)[index], correlation_loss(moments[index], 0.2)
        )


def test_gradient_of_weight_is_the_chain_rule() -> None:
    encoder, decorrelator = underway()
    tokens = correlated_tokens(50)
    products = {
        f"{name}.weight": (original(layer) @ matrix(layer)).detach().requires_grad_()
        for name, layer in encoder.layers.items()
    }
    biases = {f"{name}.bias": layer.bias for name, layer in encoder.layers.items()}
    expected = functional_call(Encoder(), products | biases, tokens)
    expected.square().sum().backward()

    output = observe(encoder, decorrelator, tokens)
    torch.testing.assert_close(output, expected)
    output.square().sum().backward()
    for name, layer in encoder.layers.items():
        gradient = products[f"{name}.weight"].grad
        assert gradient is not None
        torch.testing.assert_close(original(layer).grad, gradient @ matrix(layer).T)


@pytest.mark.parametrize("update", ["paper", "function-preserving"])
def test_fold_changes_no_output(update: str) -> None:
    encoder, decorrelator = underway(update=update, block=6)
    tokens = correlated_tokens(200)
    for _ in range(20):
        observe(encoder, decorrelator, tokens)
        decorrelator.step()
    before = encoder(tokens)
    decorrelator.fold()
    assert set(encoder.state_dict()) == set(Encoder().state_dict())
    assert not any(layer._forward_pre_hooks for layer in encoder.layers.values())
    torch.testing.assert_close(encoder(tokens), before, atol=1e-5, rtol=1e-5)


def test_fold_leaves_the_hooks_of_others() -> None:
    encoder, decorrelator = decorrelated()
    tokens = correlated_tokens(20)
    seen = watch_inputs(encoder)
    decorrelator.fold()
    encoder(tokens)
    assert seen.keys() == set(encoder.layers.values())


def change_of_output(update: str, eps: float) -> float:
    encoder, decorrelator = underway(update=update, eps=eps, layers=["fc1", "proj"], block=6)
    encoder.double()
    tokens = correlated_tokens(200).double()
    before = observe(encoder, decorrelator, tokens)
    decorrelator.step()
    return float((encoder(tokens) - before).detach().norm())


@pytest.mark.parametrize(("update", "order"), [("paper", 1), ("function-preserving", 2)])
def test_order_of_the_change_of_the_function(update: str, order: int) -> None:
    ratio = change_of_output(update, 1e-2) / change_of_output(update, 5e-3)
    assert ratio == pytest.approx(2**order, rel=0.1)


@pytest.mark.parametrize("update", ["paper", "function-preserving"])
def test_correlated_inputs_become_white(update: str) -> None:
    encoder, decorrelator = decorrelated(update=update, eps=0.1, kappa=0.5, layers=["fc1"])
    tokens = correlated_tokens(2000)
    before = torch.linalg.cond(gram(tokens[0]))
    for _ in range(300):
        with decorrelator.training_pass(2000):
            encoder.fc1(tokens)
        decorrelator.step()
    after = torch.linalg.cond(gram(tokens[0] @ matrix(encoder.fc1).T))
    assert before > 100
    assert after < 2


def test_the_largest_step_keeps_the_function_and_does_not_diverge() -> None:
    encoder, decorrelator = decorrelated(update="function-preserving", eps=100.0)
    tokens = 10 * correlated_tokens(200) + 5  # one direction has most of the energy
    before = encoder.fc1.weight.detach().clone()
    observe(encoder, decorrelator, tokens)
    decorrelator.step()
    change = torch.linalg.matrix_norm(encoder.fc1.weight - before, ord=2)
    assert change <= 0.25 * torch.linalg.matrix_norm(before, ord=2)
    for _ in range(100):
        observe(encoder, decorrelator, tokens)
        decorrelator.step()
    kept = torch.linalg.svdvals(matrix(encoder.fc1))
    assert kept.isfinite().all()
    assert kept.min() > 1e-3


def test_blocks_cover_the_width() -> None:
    assert block_size(3072, 768) == 768
    assert block_size(128, 768) == 128
    assert block_size(20, 6) == 5
    weight = torch.randn(7, 20, generator=torch.Generator().manual_seed(0))
    blocks = torch.randn(4, 5, 5, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(multiply_blocks(weight, blocks), weight @ torch.block_diag(*blocks))
