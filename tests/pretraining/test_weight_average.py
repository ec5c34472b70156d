"""The average of the weights against its definition, and as what is validated and kept."""

import pytest
import tiny
import torch
from tiny import SPEC, start, tiny_params
from torch import nn

from dbp_mae.errors import UserError
from dbp_mae.pretraining.masked_autoencoder import MaskedAutoencoder
from dbp_mae.pretraining.weight_average import WeightAverage


def moved(model: MaskedAutoencoder, step: int) -> MaskedAutoencoder:
    """Give every weight that learns a value that is the step's own."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.fill_(float(step) ** 2)
    return model


@pytest.mark.parametrize("age", [0.02, 0.05, 0.4])
@pytest.mark.parametrize("every", [1, 3])
def test_weights_count_by_a_power_of_their_step(every: int, age: float) -> None:
    model = MaskedAutoencoder(SPEC, tiny_params())
    average = WeightAverage(model, age, every)
    for step in range(1, 32):
        average.follow(moved(model, step), step)
    times = torch.arange(0, 32, every).double()
    shares = (times / times[-1]) ** (1 / age - 1)
    expected = float((shares.diff() * times[1:] ** 2).sum())
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    for name in trained:
        weight = average.model.get_parameter(name)
        torch.testing.assert_close(weight, torch.full_like(weight, expected), rtol=1e-4, atol=0)


def test_mean_age_is_the_share_that_was_asked_for() -> None:
    model = MaskedAutoencoder(SPEC, tiny_params())
    average = WeightAverage(model, 0.1, every=1)
    for step in range(1, 51):
        with torch.no_grad():
            model.mask_token.fill_(step)
        average.follow(model, step)
    age = 1 - float(average.model.mask_token.mean()) / 50
    assert age == pytest.approx(0.1, abs=0.01)


@torch.no_grad()
def gap(one: nn.Module, other: nn.Module) -> float:
    others = dict(other.named_parameters())
    return max(
        float((weight - others[name]).abs().max()) for name, weight in one.named_parameters()
    )


@pytest.mark.parametrize("update", ["none", "paper", "function-preserving"])
def test_what_is_averaged_is_the_folded_network(update: str) -> None:
    training, batches = start(tiny_params(update=update, averaging=0.05))
    tiny.step(training, batches)  # the only one so far: its own average
    average = training.average
    assert average
    training.average = None
    assert gap(average.model, training.fold()) < 1e-6


def test_what_is_validated_is_what_is_kept() -> None:
    training, batches = start(tiny_params(averaging=0.2))
    for _ in range(8):
        tiny.step(training, batches)
    with torch.no_grad():
        validated = training.validate()["val_loss"]
        assert float(training.fold()(*training.validation)) == pytest.approx(validated, rel=1e-6)
        training.average = None
        assert training.validate()["val_loss"] != pytest.approx(validated, rel=1e-6)


def test_averaging_leaves_the_training_alone() -> None:
    weights = {}
    for averaging in (0.0, 0.05):
        training, batches = start(tiny_params(averaging=averaging))
        for _ in range(6):
            tiny.step(training, batches)
        weights[averaging] = training.plain_model.state_dict()
    for name, weight in weights[0.0].items():
        assert torch.equal(weight, weights[0.05][name]), name


def test_a_state_without_an_average_is_no_state_to_average_from() -> None:
    before, _ = start(tiny_params())
    after, _ = start(tiny_params(averaging=0.05))
    with pytest.raises(UserError, match=r"pretrain\.averaging was 0"):
        after.load_state(before.state())
    before.load_state(after.state())
