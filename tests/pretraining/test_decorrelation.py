"""The decorrelation update against its equations, and what must hold whatever the data."""

import copy

import pytest
import torch
from torch import Tensor, nn

from dbp_mae.params import DecorrelationParams
from dbp_mae.pretraining.decorrelation import (
    Decorrelator,
    block_size,
    correlation_loss,
    gram,
    multiply_blocks,
    residual,
)

PARAMS = DecorrelationParams(
    update="paper",
    eps=1e-2,
    kappa=0.3,
    sample=1.0,
    every=1,
    block=768,
    layers=["qkv", "proj", "fc1", "fc2"],
)


class Encoder(nn.Module):
    """Two linear layers under the names that decorrelation looks for."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 20)
        self.fc2 = nn.Linear(20, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(torch.relu(self.fc1(x)))


def correlated_tokens(count: int, width: int) -> Tensor:
    """Draw Gaussian vectors with a random covariance: (1, count, width)."""
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(width, width, generator=generator) / width**0.5
    return (torch.randn(count, width, generator=generator) @ mixing + 0.1).unsqueeze(0)


def decorrelated(**changes: object) -> tuple[Encoder, Decorrelator]:
    torch.manual_seed(0)
    encoder = Encoder()
    decorrelator = Decorrelator(encoder, PARAMS.model_copy(update=changes), seed=0)
    return encoder, decorrelator


def matrix(layer: nn.Linear) -> Tensor:
    return torch.block_diag(*layer.parametrizations["weight"][0].decorrelator)


def loop_over_equations(
    states: Tensor, r: Tensor, eps: float, kappa: float
) -> tuple[Tensor, float]:
    """Return the next R and the correlation loss, element by element in float64."""
    states, r = states.double(), r.double()
    k, d = states.shape
    moments = torch.zeros(d, d, dtype=torch.float64)
    for z in states:
        for i in range(d):
            for j in range(d):
                moments[i, j] += z[i] * z[j] / k
    step, loss = torch.zeros_like(moments), 0.0
    for i in range(d):
        for j in range(d):
            part = moments[i, j] - 1 if i == j else moments[i, j]
            weight = kappa if i == j else 1 - kappa
            step[i, j] = weight * part
            loss += float(weight * part**2) / d**2
    return r - eps * step @ r, loss


def test_paper_update_follows_the_equations() -> None:
    encoder, decorrelator = decorrelated()
    tokens = correlated_tokens(30, 12)
    r = torch.eye(12)
    for _ in range(3):
        encoder(tokens)
        expected, loss = loop_over_equations(tokens[0] @ r.T.float(), r, PARAMS.eps, PARAMS.kappa)
        decorrelator.step()
        r = matrix(encoder.fc1)
        torch.testing.assert_close(r.double(), expected, atol=1e-5, rtol=1e-5)
        assert decorrelator.last_correlation is not None
        assert float(decorrelator.last_correlation[0]) == pytest.approx(loss, rel=1e-4)


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
    encoder, decorrelator = decorrelated()
    tokens = correlated_tokens(50, 12)
    encoder(tokens)
    decorrelator.step()
    r = matrix(encoder.fc1)
    encoder(tokens).square().sum().backward()

    folded = copy.deepcopy(encoder)
    product = (folded.fc1.parametrizations["weight"].original @ r).detach().requires_grad_()
    hidden = torch.relu(tokens @ product.T + folded.fc1.bias)
    folded.fc2(hidden).square().sum().backward()
    assert product.grad is not None
    torch.testing.assert_close(
        encoder.fc1.parametrizations["weight"].original.grad, product.grad @ r.T
    )


@pytest.mark.parametrize("update", ["paper", "function-preserving"])
def test_fold_changes_no_output(update: str) -> None:
    encoder, decorrelator = decorrelated(update=update, block=6)
    tokens = correlated_tokens(200, 12)
    for _ in range(20):
        encoder(tokens)
        decorrelator.step()
    before = encoder(tokens)
    decorrelator.fold()
    assert set(encoder.state_dict()) == set(Encoder().state_dict())
    torch.testing.assert_close(encoder(tokens), before, atol=1e-5, rtol=1e-5)


def change_of_output(update: str, eps: float) -> float:
    encoder, decorrelator = decorrelated(update=update, eps=eps, layers=["fc1"])
    encoder.double()
    tokens = correlated_tokens(200, 12).double()
    before = encoder(tokens)
    decorrelator.step()
    return float((encoder(tokens) - before).norm())


@pytest.mark.parametrize(("update", "order"), [("paper", 1), ("function-preserving", 2)])
def test_order_of_the_change_of_the_function(update: str, order: int) -> None:
    ratio = change_of_output(update, 1e-2) / change_of_output(update, 5e-3)
    assert ratio == pytest.approx(2**order, rel=0.1)


@pytest.mark.parametrize("update", ["paper", "function-preserving"])
def test_correlated_inputs_become_white(update: str) -> None:
    encoder, decorrelator = decorrelated(update=update, eps=0.1, kappa=0.5, layers=["fc1"])
    tokens = correlated_tokens(2000, 12)
    before = torch.linalg.cond(gram(tokens[0]))
    for _ in range(3000):
        decorrelator.inputs[encoder.fc1] = tokens[0]
        decorrelator.step()
    after = torch.linalg.cond(gram(tokens[0] @ matrix(encoder.fc1).T))
    assert before > 100
    assert after < 2


def test_large_steps_do_not_diverge() -> None:
    encoder, decorrelator = decorrelated(update="function-preserving", eps=100.0)
    tokens = 10 * correlated_tokens(200, 12)
    for _ in range(100):
        encoder(tokens)
        decorrelator.step()
    assert torch.isfinite(matrix(encoder.fc1)).all()


def test_blocks_cover_the_width() -> None:
    assert block_size(3072, 768) == 768
    assert block_size(128, 768) == 128
    assert block_size(20, 6) == 5
    weight = torch.randn(7, 20, generator=torch.Generator().manual_seed(0))
    blocks = torch.randn(4, 5, 5, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(multiply_blocks(weight, blocks), weight @ torch.block_diag(*blocks))


def test_sample_is_without_replacement_and_shared() -> None:
    encoder, decorrelator = decorrelated(sample=0.25)
    tokens = torch.arange(40.0).view(1, 40, 1).expand(1, 40, 12)
    encoder(tokens)
    rows = decorrelator.inputs[encoder.fc1][:, 0].tolist()
    assert len(set(rows)) == 10
    assert len(decorrelator.inputs[encoder.fc2]) == 10


def test_updates_every_nth_step_and_not_in_evaluation() -> None:
    encoder, decorrelator = decorrelated(every=2)
    tokens = correlated_tokens(50, 12)
    changed = []
    for _ in range(4):
        before = matrix(encoder.fc1).clone()
        encoder(tokens)
        decorrelator.step()
        changed.append(not torch.equal(before, matrix(encoder.fc1)))
    assert changed == [True, False, True, False]
    encoder.eval()(tokens)
    assert not decorrelator.inputs
