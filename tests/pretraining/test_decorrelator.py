"""Decorrelation of a network: which samples, at which steps, in which format, and what is refused."""

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
    watch_inputs,
)
from tiny import start, tiny_params
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from dbp_mae.errors import UserError
from dbp_mae.pretraining.decorrelation import gram, residual
from dbp_mae.pretraining.decorrelator import Decorrelator, check_sample, step_length
from dbp_mae.training.schedule import warmup_cosine


def sample(decorrelator: Decorrelator, part: int = 0) -> list[int]:
    with decorrelator.training_pass(40, part):
        assert decorrelator.sample is not None
        return decorrelator.sample.tolist()


def test_sample_is_without_replacement_and_anew_for_each_pass_and_step() -> None:
    encoder, decorrelator = decorrelated(sample=0.25)
    samples = [sample(decorrelator), sample(decorrelator, part=1)]
    observe(encoder, decorrelator, correlated_tokens(40))
    decorrelator.step()
    samples.append(sample(decorrelator))
    for indices in samples:
        assert len(set(indices)) == 10
        assert 0 <= min(indices) <= max(indices) < 40
    assert len({tuple(indices) for indices in samples}) == 3
    assert sample(decorrelator) == samples[2]


def test_the_sampled_tokens_alone_are_observed() -> None:
    encoder, decorrelator = decorrelated(sample=0.25)
    tokens = correlated_tokens(40)
    indices = sample(decorrelator)
    observe(encoder, decorrelator, tokens)
    decorrelator.step()
    expected, _ = loop_over_equations(tokens[0, indices], torch.eye(12), PARAMS.eps, PARAMS.kappa)
    torch.testing.assert_close(matrix(encoder.fc1).double(), expected, atol=1e-6, rtol=1e-6)


def test_updates_every_nth_step_and_not_outside_a_training_pass() -> None:
    encoder, decorrelator = decorrelated(every=2)
    tokens = correlated_tokens(50)
    changed = []
    for _ in range(4):
        before = matrix(encoder.fc1).clone()
        observe(encoder, decorrelator, tokens)
        decorrelator.step()
        encoder(tokens)  # validation
        for layer in encoder.layers.values():
            layer_pass = layer.parametrizations["weight"][0].layer_pass
            assert layer_pass.inputs is None
            assert layer_pass.product is None
        changed.append(not torch.equal(before, matrix(encoder.fc1)))
    assert changed == [True, False, True, False]


def test_step_without_observation_is_refused() -> None:
    encoder, decorrelator = decorrelated()
    encoder(correlated_tokens(50))
    with pytest.raises(RuntimeError, match="training_pass"):
        decorrelator.step()


def test_a_pass_that_fails_leaves_nothing_behind() -> None:
    encoder, decorrelator = decorrelated()
    tokens = correlated_tokens(30)
    encoder.fc2.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        observe(encoder, decorrelator, tokens)
    with torch.no_grad():
        original(encoder.fc1).zero_()
    assert torch.equal(encoder.fc1(tokens), encoder.fc1.bias.expand(1, 30, -1))
    with pytest.raises(RuntimeError, match="training_pass"):
        decorrelator.step()


@pytest.mark.parametrize("update", ["paper", "function-preserving"])
def test_several_passes_are_as_one(update: str) -> None:
    tokens = correlated_tokens(60)
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
    tokens = correlated_tokens(30)
    seen = watch_inputs(encoder)
    for _ in range(3):
        before = {layer: matrix(layer) for layer in encoder.layers.values()}
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
            tokens = correlated_tokens(30) * (1 + step)
            with torch.autocast("cpu", precision, enabled=precision != torch.float32):
                observe(encoder.train(), decorrelator, tokens)
                encoder.eval()(tokens[:, :7])
            decorrelator.step()
        states.append(encoder.state_dict())
    for name, plain in states[0].items():
        torch.testing.assert_close(states[1][name], plain)
    assert not torch.equal(matrix(encoder.fc1), torch.eye(12))


@pytest.mark.parametrize(("steps", "warmup", "every"), [(600, 15, 4), (3000, 0, 4), (7, 2, 16)])
def test_all_steps_together_are_as_long_as_given(steps: int, warmup: int, every: int) -> None:
    params = tiny_params(
        eps=None, total_eps=3.0, steps=steps, warmup_steps=warmup, every=every, validate_every=1
    )
    schedule = [warmup_cosine(step, steps, warmup) for step in range(0, steps, every)]
    assert sum(step_length(params) * factor for factor in schedule) == pytest.approx(3.0)
    assert step_length(tiny_params(eps=0.02)) == 0.02
    decorrelator = start(params)[0].decorrelator
    assert decorrelator is not None
    assert decorrelator.eps == step_length(params)


def largest_eps(tokens: Tensor) -> float:
    """Return the eps from which the published update overshoots, in float64."""
    moments = residual(gram(tokens[0].double()), PARAMS.kappa)
    return 2 / float(torch.linalg.eigvalsh(moments).max())


@pytest.mark.parametrize(("share", "diverges"), [(0.95, False), (1.5, True)])
def test_an_eps_that_is_too_large_is_refused_and_does_diverge(share: float, diverges: bool) -> None:
    tokens = 4 * correlated_tokens(200)
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


def test_any_eps_suits_inputs_that_are_to_grow() -> None:
    """With kappa 1 and variances below 1 every eigenvalue of M is negative."""
    encoder, decorrelator = decorrelated(kappa=1.0, eps=0.5, layers=["fc1"])
    observe(encoder, decorrelator, 0.1 * correlated_tokens(200))
    decorrelator.check_eps()


def test_check_of_eps_leaves_no_trace() -> None:
    tokens = correlated_tokens(200)
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
    tokens = correlated_tokens(30)
    for step in range(4):
        observe(encoder, decorrelator, tokens)
        if step == 2:
            decorrelator_of(encoder.proj).fill_(torch.inf)
        decorrelator.step()
        assert decorrelator.first_broken() == (None if step < 2 else ("proj", 2))
    with torch.no_grad():
        encoder(tokens.fill_(torch.nan))
    observe(encoder, decorrelator, tokens)
    decorrelator.step()
    assert decorrelator.first_broken() == ("proj", 2)
    decorrelator.go_on_from(1, None)
    assert decorrelator.first_broken() is None


@pytest.mark.parametrize("update", ["paper", "function-preserving"])
def test_nothing_waits_for_the_device(update: str) -> None:
    with FakeTensorMode():  # holds no values: whatever asks for one is refused
        encoder, decorrelator = decorrelated(update=update, every=2, block=6)
        tokens = torch.randn(1, 30, 12)
        for _ in range(3):
            observe(encoder, decorrelator, tokens).sum().backward()
            decorrelator.step()
        with pytest.raises(RuntimeError, match="_local_scalar_dense"):
            decorrelator.correlation()


def test_matrices_lie_where_the_weights_do() -> None:
    with torch.device("meta"):
        encoder = Encoder()
    decorrelator = Decorrelator(encoder, PARAMS, eps=0.01, seed=0)
    places = {r.device.type for group in decorrelator.groups for r in group.decorrelators}
    assert places == {"meta"}


@pytest.mark.parametrize("tokens", [3, 7, 1088, 12544])
def test_the_sample_that_is_advised_is_enough(tokens: int) -> None:
    with pytest.raises(UserError) as refused:
        check_sample(PARAMS.model_copy(update={"sample": 0.5 / tokens}), tokens)
    advised = float(str(refused.value).rstrip(".").split()[-1])
    check_sample(PARAMS.model_copy(update={"sample": advised}), tokens)
    assert advised < 1 / tokens + 1e-4
