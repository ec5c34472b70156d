"""What decorrelation computes is counted, and is what its equations say."""

from argparse import Namespace

import pytest
from default_params import default_params
from torch import nn

from benchmarks import training_step
from benchmarks.step_flops import count_flops, flops
from benchmarks.training_step import pretraining, step_params, with_update
from dbp_mae.params import PretrainParams

BATCH = 30


@pytest.fixture
def params(monkeypatch: pytest.MonkeyPatch) -> PretrainParams:
    monkeypatch.setattr(training_step, "load_params", default_params)
    arguments = Namespace(batch=BATCH, image=32, patch=8, precision="32-true")
    sizes = {"model": "nano", "optimizer": "muon", "decoder_dim": 64, "decoder_depth": 1}
    return step_params(arguments, **sizes)


def expected(params: PretrainParams) -> float:
    """Return what R adds to a step: two products with each layer's weight, and a share of its moves."""
    decorrelation = params.decorrelation
    preserving = decorrelation.update == "function-preserving"
    run = pretraining(params, channels=1)
    sampled = decorrelation.sample * params.batch * (1 + params.visible)
    added = 0.0
    if decorrelation.whitens_patches:
        added += 2 * 2 * run.plain_model.encoder.embed_dim * params.patch**4
    for layer in run.decorrelator.layers.values():
        assert isinstance(layer, nn.Linear)
        out, width = layer.out_features, layer.in_features
        (block,) = {matrix.shape[-1] for matrix in layer.parametrizations["weight"][0].buffers()}
        product = 2 * out * width * block  # W R, or the gradient of W
        statistics = 2 * (2 * sampled * width * block)  # z = R x, and Z'Z
        move = preserving * product + 2 * width * block**2  # of W, and of R
        added += 2 * product + (statistics + move) / decorrelation.every
    return added


@pytest.mark.parametrize(
    ("update", "every"),
    [("paper", 1), ("function-preserving", 1), ("function-preserving", 8)],
)
def test_the_count_is_that_of_the_equations(
    params: PretrainParams, update: str, every: int
) -> None:
    decorrelated = with_update(params, update, every)
    added = flops(decorrelated, channels=1) - flops(with_update(params, "none"), channels=1)
    assert added == pytest.approx(expected(decorrelated), rel=1e-9)


@pytest.mark.parametrize("update", ["none", "function-preserving"])
@pytest.mark.parametrize("image", [32, 64])
def test_two_batches_tell_the_count_of_another(
    params: PretrainParams, update: str, image: int
) -> None:
    variant = with_update(params.model_copy(update={"crop": image}), update)
    assert flops(variant, channels=1) == pytest.approx(count_flops(variant, channels=1), rel=1e-9)
