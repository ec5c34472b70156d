"""The average of the weights against its definition, and as what is validated and kept."""

import pytest
import tiny
import torch
from tiny import SPEC, start, tiny_params
from torch import nn

from dbp_mae.pretraining.masked_autoencoder import MaskedAutoencoder
from dbp_mae.pretraining.run import Pretraining
from dbp_mae.pretraining.weight_average import WeightAverage


def moved(model: MaskedAutoencoder, step: int) -> MaskedAutoencoder:
    """Give every weight that learns a value that is the step's own."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.fill_(float(step) ** 2)
    return model


@pytest.mark.parametrize("age", [0.02, 0.05, 0.4])
@pytest.mark.parametrize("every", [1, 3, 100])
def test_weights_count_by_a_power_of_their_step(every: int, age: float) -> None:
    model = MaskedAutoencoder(SPEC, tiny_params())
    average = WeightAverage(model, age, every, steps=31)
    for step in range(1, 32):
        if average.due(step):
            average.follow(moved(model, step), step)
    times = torch.tensor([*range(0, 31, every), 31]).double()
    shares = (times / times[-1]) ** (1 / age - 1)
    expected = float((shares.diff() * times[1:] ** 2).sum())
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    for name in trained:
        weight = average.model.get_parameter(name)
        torch.testing.assert_close(weight, torch.full_like(weight, expected), rtol=1e-4, atol=0)


def test_mean_age_is_the_share_that_was_asked_for() -> None:
    model = MaskedAutoencoder(SPEC, tiny_params())
    average = WeightAverage(model, 0.1, every=1, steps=500)
    for step in range(1, 501):
        with torch.no_grad():
            model.mask_token.fill_(step)
        average.follow(model, step)
    age = 1 - float(average.model.mask_token.mean()) / 500
    assert age == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize(
    ("steps", "validate_every", "every"),
    [(1500, 30, 15), (1500, 10, 10), (240, 20, 4), (20, 20, 4), (20, 2, 2), (20000, 3, 3)],
)
def test_weights_count_before_the_first_validation(
    steps: int, validate_every: int, every: int
) -> None:
    training, _ = start(tiny_params(averaging=0.05, steps=steps, validate_every=validate_every))
    assert training.average
    assert training.average.every == every


@torch.no_grad()
def gap(one: nn.Module, other: nn.Module) -> float:
    others = dict(other.named_parameters())
    return max(
        float((weight - others[name]).abs().max()) for name, weight in one.named_parameters()
    )


def averaged(steps: int, **changes: object) -> Pretraining:
    """Return a training after so many steps, each of whose weights count."""
    training, batches = start(tiny_params(validate_every=1, averaging=0.2, **changes))
    for _ in range(steps):
        tiny.step(training, batches)
    return training


@pytest.mark.parametrize("update", ["none", "paper", "function-preserving"])
def test_what_is_averaged_is_the_folded_network(update: str) -> None:
    training = averaged(1, update=update)  # the only step so far: its own average
    average, training.average = training.average, None
    assert average
    assert gap(average.model, training.fold()) < 1e-6


@torch.no_grad()
def validation_loss(training: Pretraining) -> float:
    return training.validate()["val_loss"]


def test_what_is_validated_is_what_is_kept() -> None:
    training = averaged(8)
    validated = validation_loss(training)
    with torch.no_grad():
        assert float(training.fold()(*training.validation)) == pytest.approx(validated, rel=1e-6)
    training.average = None
    assert validation_loss(training) != pytest.approx(validated, rel=1e-6)


def test_the_average_is_validated_in_the_format_of_the_training() -> None:
    training = averaged(1, precision="bf16-mixed", update="none")
    validated = validation_loss(training)
    training.average = None
    assert validation_loss(training) == validated


def test_averaging_leaves_the_training_alone() -> None:
    plain, batches = start(tiny_params(validate_every=1))
    for _ in range(6):
        tiny.step(plain, batches)
    for name, weight in averaged(6).plain_model.state_dict().items():
        assert torch.equal(weight, plain.plain_model.state_dict()[name]), name


def test_from_a_state_without_an_average_it_begins_with_the_weights() -> None:
    plain, batches = start(tiny_params())
    tiny.step(plain, batches)
    going_on, _ = start(tiny_params(averaging=0.05))
    going_on.load_state(plain.state())
    assert going_on.average
    assert gap(going_on.average.model, plain.fold()) < 1e-6
