"""The patch embedding's R: what it makes of the patches, where it is not, and that it folds away."""

import pytest
import torch
from tiny import start, step, tiny_params
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dbp_mae.pretraining.decorrelation import gram
from dbp_mae.pretraining.patch_whitening import (
    DAMPING,
    fold_patches,
    inverse_root,
    whiten_patches,
)


def smooth_images() -> Tensor:
    """Return normalised images, (B, C, H, W), whose neighbouring pixels are alike."""
    noise = torch.randn(64, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    smooth = nn.functional.avg_pool2d(noise, 5, stride=1, padding=2)
    return (smooth - smooth.mean()) / smooth.std()


def embedding() -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(3, 10, kernel_size=8, stride=8)


def test_patches_become_white_but_for_the_damping() -> None:
    images = smooth_images()
    layer = embedding()
    whiten_patches(layer, images)
    (whitened,) = layer.parametrizations["weight"]
    patches = images.unfold(2, 8, 8).unfold(3, 8, 8)  # B C h w P P
    patches = patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2)  # N C*P*P
    before = torch.linalg.eigvalsh(gram(patches).double())
    after = torch.linalg.eigvalsh(gram(patches @ whitened.decorrelator.T).double())
    assert before[-1] / before[96] > 100
    torch.testing.assert_close(after, before / (before + DAMPING), atol=1e-4, rtol=1e-3)


def test_the_layer_applies_r_to_each_patch() -> None:
    images, layer = smooth_images(), embedding()
    weight, bias = layer.weight.detach().clone(), layer.bias
    whiten_patches(layer, images)
    (whitened,) = layer.parametrizations["weight"]
    patch = images[5, :, 8:16, 16:24].flatten()
    wanted = weight.flatten(1) @ (whitened.decorrelator @ patch) + bias
    torch.testing.assert_close(layer(images)[5, :, 1, 2], wanted, atol=1e-5, rtol=1e-4)


def test_images_of_one_grey_have_a_finite_r() -> None:
    matrix = inverse_root(torch.zeros(4, 4))
    torch.testing.assert_close(matrix, torch.eye(4) / DAMPING**0.5)


def test_fold_changes_no_output() -> None:
    images, layer = smooth_images(), embedding()
    whiten_patches(layer, images)
    before = layer(images)
    fold_patches(layer)
    assert not parametrize.is_parametrized(layer)
    torch.testing.assert_close(layer(images), before, atol=1e-5, rtol=0)
    fold_patches(layer)  # one without R stays as it is


@pytest.mark.parametrize(
    ("update", "layers", "whitened", "moved"),
    [
        ("none", ["patch_embed", "qkv"], False, False),
        ("function-preserving", ["qkv", "fc2"], False, True),
        ("function-preserving", ["patch_embed"], True, False),
        ("paper", ["patch_embed", "qkv"], True, True),
    ],
)
def test_layers_say_where_an_r_is(
    update: str, layers: list[str], whitened: bool, moved: bool
) -> None:
    training, batches = start(tiny_params(update=update, layers=layers))
    projection = training.plain_model.encoder.patch_embed.proj
    assert parametrize.is_parametrized(projection) == whitened
    assert (training.decorrelator is not None) == moved
    before = matrices(training.plain_model)
    blocks = training.params.decorrelation.block_layers
    assert len(before) == whitened + 4 * moved * len(blocks)
    for _ in range(2):
        step(training, batches)
    after = matrices(training.plain_model)
    stayed = [torch.equal(*pair) for pair in zip(before, after, strict=True)]
    assert stayed == [True] * whitened + [False] * (len(before) - whitened)
    assert (training.seconds > 0) == whitened
    folded = training.fold()
    assert not any(parametrize.is_parametrized(module) for module in folded.modules())


def matrices(model: nn.Module) -> list[Tensor]:
    """Return every R, that of the patch embedding first."""
    found = {name: value for name, value in model.named_buffers() if name.endswith("decorrelator")}
    return [found[name].clone() for name in sorted(found, key=lambda name: "patch" not in name)]
