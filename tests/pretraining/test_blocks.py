"""Our forward pass of a block against timm's own."""

import pytest
import torch
from timm.models.vision_transformer import Block
from torch import Tensor

from dbp_mae.pretraining.blocks import forward_block, forward_last, normalize


@pytest.fixture
def block() -> Block:
    torch.manual_seed(0)
    made = Block(64, 2, qkv_bias=True)
    for parameter in made.parameters():  # norms and biases away from one and zero
        torch.nn.init.normal_(parameter, std=0.2)
    return made


@pytest.fixture
def tokens() -> Tensor:
    return torch.randn(3, 10, 64, generator=torch.Generator().manual_seed(1))


def gradients(block: Block, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(block.parameters())))


def forward(block: Block, tokens: Tensor, last: int | None) -> Tensor:
    """Return what we make of the last tokens, or of all."""
    return forward_last(block, tokens, last) if last else forward_block(block, tokens)


@pytest.mark.parametrize("last", [None, 7])
def test_a_block_equals_timms_and_so_do_its_gradients(
    block: Block, tokens: Tensor, last: int | None
) -> None:
    ours, timms = forward(block, tokens, last), block(tokens)[:, -(last or tokens.shape[1]) :]
    torch.testing.assert_close(ours, timms)
    torch.testing.assert_close(
        gradients(block, ours.square().sum()), gradients(block, timms.square().sum())
    )


@pytest.mark.parametrize("last", [None, 7])
def test_under_autocast_a_block_and_its_gradients_are_timms_but_for_rounding(
    block: Block, tokens: Tensor, last: int | None
) -> None:
    exact = block(tokens)[:, -(last or tokens.shape[1]) :]
    expected = [exact, *gradients(block, exact.square().sum())]
    with torch.autocast("cpu", torch.bfloat16):
        ours = forward(block, tokens.bfloat16(), last)
    rounded = [ours, *gradients(block, ours.square().sum())]
    for one, other in zip(rounded, expected, strict=True):
        assert (one - other).norm() / other.norm() < 0.02


def test_under_autocast_norms_take_and_give_its_format(block: Block, tokens: Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        ours = normalize(block.norm1, tokens)
    assert ours.dtype == torch.bfloat16
    error = (ours.float() - block.norm1(tokens)).norm() / block.norm1(tokens).norm()
    assert error < 0.01
    assert normalize(block.norm1, tokens).dtype == torch.float32
