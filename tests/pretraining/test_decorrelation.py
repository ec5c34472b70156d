"""The decorrelation update against its equations, and what must hold whatever the data."""

import copy

import pytest
import torch
from torch import Tensor, nn

from dbp_mae.errors import UserError
from dbp_mae.params import DecorrelationParams
from dbp_mae.pretraining.decorrelation import (
    block_size,
    correlation_loss,
    gram,
    multiply_blocks,
    residual,
)
from dbp_mae.pretraining.decorrelator import Decorrelator

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

    def __init__(self, width: int = 12, hidden: int = 20) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, 7)

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


def observe(encoder: Encoder, decorrelator: Decorrelator, tokens: Tensor) -> Tensor:
    """Run a forward pass under observation."""
    with decorrelator.training_pass(tokens.shape[:-1].numel()):
        return encoder(tokens)


def watch_inputs(encoder: Encoder) -> dict[nn.Module, Tensor]:
    """Return what holds each layer's inputs, (k, d), once a forward pass has been run."""
    seen: dict[nn.Module, Tensor] = {}
    for layer in (encoder.fc1, encoder.fc2):
        layer.register_forward_pre_hook(lambda layer, inputs: seen.update({layer: inputs[0][0]}))
    return seen


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
        observe(encoder, decorrelator, tokens)
        expected, loss = loop_over_equations(tokens[0] @ r.T.float(), r, PARAMS.eps, PARAMS.kappa)
        decorrelator.step()
        r = matrix(encoder.fc1)
        torch.testing.assert_close(r.double(), expected, atol=1e-5, rtol=1e-5)
        assert decorrelator.last_correlation is not None
        assert float(decorrelator.last_correlation[0]) == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("block", [12, 6, 5])  # 5 does not divide the width: blocks of 4
@pytest.mark.parametrize("update", ["paper", "function-preserving"])
def test_every_block_of_layers_of_one_shape_follows_the_equations(update: str, block: int) -> None:
    torch.manual_seed(0)
    encoder = Encoder(hidden=12)
    decorrelator = Decorrelator(
        encoder, PARAMS.model_copy(update={"update": update, "block": block}), seed=0
    )
    tokens = correlated_tokens(30, 12)
    seen = watch_inputs(encoder)
    for _ in range(3):
        before = {layer: state(layer) for layer in (encoder.fc1, encoder.fc2)}
        observe(encoder, decorrelator, tokens)
        decorrelator.step()
        for layer, (matrices, weight) in before.items():
            moved, compensated = state(layer)
            size = matrices.shape[-1]
            assert size == block_size(12, block)
            for index, r in enumerate(matrices):
                columns = slice(index * size, (index + 1) * size)
                states = seen[layer][:, columns].detach().double() @ r.T
                expected, _ = loop_over_equations(states, r, PARAMS.eps, PARAMS.kappa)
                torch.testing.assert_close(moved[index], expected, atol=1e-6, rtol=1e-6)
                eps_m = (r - expected) @ r.inverse() if update != "paper" else torch.zeros_like(r)
                expected = weight[:, columns] @ (torch.eye(size) + eps_m)
                torch.testing.assert_close(compensated[:, columns], expected, atol=1e-6, rtol=1e-6)


def state(layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """Return R's blocks and W, in float64."""
    parametrized = layer.parametrizations["weight"]
    return parametrized[0].decorrelator.double(), parametrized.original.detach().double()


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
    observe(encoder, decorrelator, tokens)
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
        observe(encoder, decorrelator, tokens)
        decorrelator.step()
    before = encoder(tokens)
    decorrelator.fold()
    assert set(encoder.state_dict()) == set(Encoder().state_dict())
    torch.testing.assert_close(encoder(tokens), before, atol=1e-5, rtol=1e-5)


def change_of_output(update: str, eps: float) -> float:
    encoder, decorrelator = decorrelated(update=update, eps=eps, layers=["fc1"])
    encoder.double()
    tokens = correlated_tokens(200, 12).double()
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
    tokens = correlated_tokens(2000, 12)
    before = torch.linalg.cond(gram(tokens[0]))
    for _ in range(3000):
        with decorrelator.training_pass(2000):
            encoder.fc1(tokens)
        decorrelator.step()
    after = torch.linalg.cond(gram(tokens[0] @ matrix(encoder.fc1).T))
    assert before > 100
    assert after < 2


def test_the_largest_step_keeps_the_function_and_does_not_diverge() -> None:
    encoder, decorrelator = decorrelated(update="function-preserving", eps=100.0)
    tokens = 10 * correlated_tokens(200, 12) + 5  # one direction has most of the energy
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


def sample(decorrelator: Decorrelator, part: int = 0) -> list[int]:
    with decorrelator.training_pass(40, part):
        assert decorrelator.sample is not None
        return decorrelator.sample.tolist()


def test_sample_is_without_replacement_and_anew_for_each_pass_and_step() -> None:
    encoder, decorrelator = decorrelated(sample=0.25)
    samples = [sample(decorrelator), sample(decorrelator, part=1)]
    observe(encoder, decorrelator, correlated_tokens(40, 12))
    decorrelator.step()
    samples.append(sample(decorrelator))
    for indices in samples:
        assert len(set(indices)) == 10
        assert 0 <= min(indices) <= max(indices) < 40
    assert len({tuple(indices) for indices in samples}) == 3
    assert sample(decorrelator) == samples[2]


def test_the_sampled_tokens_alone_are_observed() -> None:
    encoder, decorrelator = decorrelated(sample=0.25)
    tokens = correlated_tokens(40, 12)
    indices = sample(decorrelator)
    observe(encoder, decorrelator, tokens)
    decorrelator.step()
    expected, _ = loop_over_equations(tokens[0, indices], torch.eye(12), PARAMS.eps, PARAMS.kappa)
    torch.testing.assert_close(matrix(encoder.fc1).double(), expected, atol=1e-6, rtol=1e-6)


def test_updates_every_nth_step_and_not_outside_a_training_pass() -> None:
    encoder, decorrelator = decorrelated(every=2)
    tokens = correlated_tokens(50, 12)
    changed = []
    for _ in range(4):
        before = matrix(encoder.fc1).clone()
        observe(encoder, decorrelator, tokens)
        decorrelator.step()
        encoder(tokens)  # validation
        for layer in (encoder.fc1, encoder.fc2):
            parametrization = layer.parametrizations["weight"][0]
            assert parametrization.inputs is None
            assert parametrization.product is None
        changed.append(not torch.equal(before, matrix(encoder.fc1)))
    assert changed == [True, False, True, False]


def test_step_without_observation_is_refused() -> None:
    encoder, decorrelator = decorrelated()
    encoder(correlated_tokens(50, 12))
    with pytest.raises(RuntimeError, match="training_pass"):
        decorrelator.step()


def test_a_pass_that_fails_leaves_nothing_behind() -> None:
    encoder, decorrelator = decorrelated()
    tokens = correlated_tokens(30, 12)
    encoder.fc2.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        observe(encoder, decorrelator, tokens)
    with torch.no_grad():
        encoder.fc1.parametrizations["weight"].original.zero_()
    assert torch.equal(encoder.fc1(tokens), encoder.fc1.bias.expand(1, 30, -1))
    with pytest.raises(RuntimeError, match="training_pass"):
        decorrelator.step()


@pytest.mark.parametrize("update", ["paper", "function-preserving"])
def test_several_passes_are_as_one(update: str) -> None:
    tokens = correlated_tokens(60, 12)
    matrices, weights = [], []
    for passes in (1, 3):
        encoder, decorrelator = decorrelated(update=update)
        for _ in range(5):
            for part in tokens.chunk(passes, dim=1):
                observe(encoder, decorrelator, part)
            decorrelator.step()
        matrices.append(matrix(encoder.fc2))
        weights.append(encoder.fc2.weight.detach())
    torch.testing.assert_close(matrices[0], matrices[1])
    torch.testing.assert_close(weights[0], weights[1])


def test_update_is_in_float32_under_autocast() -> None:
    encoder, decorrelator = decorrelated(eps=0.1)
    tokens = correlated_tokens(30, 12)
    seen = watch_inputs(encoder)
    for _ in range(3):
        before = {layer: matrix(layer) for layer in (encoder.fc1, encoder.fc2)}
        with torch.autocast("cpu", torch.bfloat16):
            observe(encoder, decorrelator, tokens).square().sum().backward()
        decorrelator.step()
        assert seen[encoder.fc2].dtype == torch.bfloat16
        for layer, r in before.items():
            states = seen[layer].detach().double() @ r.T.double()
            expected, _ = loop_over_equations(states, r, 0.1, PARAMS.kappa)
            assert matrix(layer).dtype == torch.float32
            torch.testing.assert_close(matrix(layer).double(), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_compiled_layers_are_observed_in_one_graph(precision: torch.dtype) -> None:
    states = []
    for compiled in (False, True):
        encoder, decorrelator = decorrelated(update="function-preserving", sample=0.5, every=2)
        if compiled:
            encoder.compile(backend="aot_eager", fullgraph=True)
        for step in range(6):
            tokens = correlated_tokens(30, 12) * (1 + step)
            with torch.autocast("cpu", precision, enabled=precision != torch.float32):
                observe(encoder.train(), decorrelator, tokens)
                encoder.eval()(tokens[:, :7])
            decorrelator.step()
        states.append(encoder.state_dict())
    for name, plain in states[0].items():
        torch.testing.assert_close(states[1][name], plain)
    assert not torch.equal(matrix(encoder.fc1), torch.eye(12))


def largest_eps(tokens: Tensor) -> float:
    """Return the eps from which the published update overshoots, in float64."""
    moments = residual(gram(tokens[0].double()), PARAMS.kappa)
    return 2 / float(torch.linalg.eigvalsh(moments).max())


@pytest.mark.parametrize(("share", "diverges"), [(0.95, False), (1.5, True)])
def test_an_eps_that_is_too_large_is_refused_and_does_diverge(share: float, diverges: bool) -> None:
    tokens = 4 * correlated_tokens(200, 12)
    limit = largest_eps(tokens)
    encoder, decorrelator = decorrelated(eps=share * limit, layers=["fc1"])
    observe(encoder, decorrelator, tokens)
    if diverges:
        with pytest.raises(UserError, match=rf"eps .* fc1, .* less than {limit:.2g}"):
            decorrelator.check_eps()
    else:
        decorrelator.check_eps()
    for _ in range(50):
        observe(encoder, decorrelator, tokens)
        decorrelator.step()
    assert torch.isfinite(matrix(encoder.fc1)).all() != diverges


def test_check_of_eps_leaves_no_trace() -> None:
    tokens = correlated_tokens(200, 12)
    matrices = []
    for checked in (False, True):
        encoder, decorrelator = decorrelated(eps=0.01)
        if checked:
            observe(encoder, decorrelator, 3 * tokens)
            decorrelator.check_eps()
        observe(encoder, decorrelator, tokens)
        decorrelator.step()
        matrices.append(matrix(encoder.fc2))
    assert torch.equal(*matrices)


def test_the_layer_that_breaks_first_is_named() -> None:
    encoder, decorrelator = decorrelated()
    tokens = correlated_tokens(30, 12)
    for step in range(4):
        observe(encoder, decorrelator, tokens)
        if step == 2:
            encoder.fc2.parametrizations["weight"][0].decorrelator.fill_(torch.inf)
        decorrelator.step()
        assert decorrelator.first_broken() == (None if step < 2 else ("fc2", 2))
    with torch.no_grad():
        encoder(tokens.fill_(torch.nan))
    observe(encoder, decorrelator, tokens)
    decorrelator.step()
    assert decorrelator.first_broken() == ("fc2", 2)
    decorrelator.go_on_from(1)
    assert decorrelator.first_broken() is None
