"""What decorrelation computes is counted, and is what its equations say."""

from argparse import Namespace

import pytest
from default_params import default_params
from torch import nn

from benchmarks import training_step
from benchmarks.step_flops import flops
from benchmarks.training_step import pretraining, step_params, with_update
from dbp_mae.params import PretrainParams

BATCH = 20


@pytest.fixture
def params(monkeypatch: pytest.MonkeyPatch) -> PretrainParams:
    monkeypatch.setattr(training_step, "load_params", default_params)
    arguments = Namespace(batch=BATCH, image=32, patch=8, precision="32-true")
    sizes = {"model": "nano", "optimizer": "muon", "decoder_dim": 64, "decoder_depth": 1}
    return step_params(arguments, **sizes)


def expected(params: PretrainParams, patch_values: int) -> float:
    """Return what the default adds to a step: two products with R a layer, and a share of R's steps."""
    decorrelation = params.decorrelation
    run = pretraining(params, channels=1)
    sampled = decorrelation.sample * BATCH * (1 + params.visible)
    added = 4.0 * run.plain_model.encoder.embed_dim * patch_values**2
    for layer in run.decorrelator.layers.values():
        assert isinstance(layer, nn.Linear)
        out, width = layer.out_features, layer.in_features
        (block,) = {matrix.shape[-1] for matrix in layer.parametrizations["weight"][0].buffers()}
        product = 2 * out * width * block  # W R, or the gradient of W
        statistics = 2 * (2 * sampled * width * block)  # z = R x, and Z'Z
        move = product + 2 * width * block**2  # of W, and of R
        added += 2 * product + (statistics + move) / decorrelation.every
    return added


def test_the_count_is_that_of_the_equations(params: PretrainParams) -> None:
    untouched = flops(with_update(params, "none"), channels=1)
    for every in (1, 8):
        decorrelated = with_update(params, "function-preserving", every)
        added = flops(decorrelated, channels=1) - untouched
        assert added == pytest.approx(expected(decorrelated, patch_values=64), rel=1e-9)


def test_a_batch_adds_what_its_images_take(params: PretrainParams) -> None:
    plain = with_update(params, "none")
    small, middle, large = (
        flops(plain.model_copy(update={"batch": batch}), channels=1) for batch in (10, 20, 30)
    )
    assert large - middle == middle - small > 0
    assert small > middle - small  # Muon's products, whatever the batch
