"""The optimizers of fine-tuning: which weights get which update, and at what rate."""

import pytest
import torch
from default_params import default_params
from torch import Tensor

from dbp_mae.encoder import EncoderSpec
from dbp_mae.segmentation.network import SegmentationNetwork
from dbp_mae.segmentation.optimizer import create_optimizer

RATE, ENCODER_RATE, LAYER_DECAY = 0.01, 0.5, 0.8


def first_update(optimizer: str, channels: int = 1, classes: int = 4) -> dict[str, Tensor]:
    """Return by how much a first step on random gradients moves each weight, in learning rates."""
    torch.manual_seed(0)
    spec = EncoderSpec("nano", 8, 64, channels, (0.4,) * channels, (0.2,) * channels)
    segmenter = SegmentationNetwork(spec, 64, classes, decoder_width=8)
    params = default_params().finetune.model_copy(
        update={
            "optimizer": optimizer,
            "learning_rate": RATE,
            "encoder_rate": ENCODER_RATE,
            "layer_decay": LAYER_DECAY,
            "weight_decay": 0.0,
        }
    )
    created = create_optimizer(segmenter, params)
    for group in created.param_groups:
        group["lr"] = RATE * group["lr_scale"]
    before = {name: weight.detach().clone() for name, weight in segmenter.named_parameters()}
    for weight in segmenter.parameters():
        weight.grad = torch.randn_like(weight)
    created.step()
    return {
        name: (weight.detach() - before[name]) / RATE
        for name, weight in segmenter.named_parameters()
    }


@pytest.mark.parametrize(("optimizer", "first"), [("adamw", 1.0), ("muon", 1.9)])
def test_vectors_move_as_adamw_moves_them(optimizer: str, first: float) -> None:
    """By the rate in a first step; with Nesterov's momentum, 1 + beta_1 of it."""
    for name, moved in first_update(optimizer).items():
        if moved.ndim == 1 and not name.startswith("encoder."):
            assert moved.abs().tolist() == pytest.approx([first] * moved.numel(), rel=1e-3)


@pytest.mark.parametrize(
    ("channels", "classes", "excepted"),
    [(1, 4, {"pixel_levels.0.0.conv.weight"}), (3, 4, set()), (3, 1, {"head.0.weight"})],
)
def test_muon_moves_the_convolutions_in_all_directions_alike(
    channels: int, classes: int, excepted: set[str]
) -> None:
    """The singular values of a step are about 0.2 times the root of the longer side (arXiv 2502.16982)."""
    orthogonal = set()
    moved = first_update("muon", channels, classes)
    for name, step in moved.items():
        if step.ndim > 1 and not name.startswith("encoder."):
            matrix = step.flatten(1)
            values = torch.linalg.svdvals(matrix) / (0.2 * max(matrix.shape) ** 0.5)
            if float(values.min()) > 0.5 and float(values.max()) < 1.5:
                orthogonal.add(name)
    convolutions = {name for name in moved if moved[name].ndim == 4 and "encoder." not in name}
    assert len(convolutions) == 10
    assert orthogonal == convolutions - excepted


@pytest.mark.parametrize(("optimizer", "first"), [("adamw", 1.0), ("muon", 1.9)])
def test_encoder_moves_as_adamw_moves_it_more_slowly_block_by_block(
    optimizer: str, first: float
) -> None:
    moved = first_update(optimizer)
    for block in range(4):
        rate = first * ENCODER_RATE * LAYER_DECAY ** (3 - block)
        for name in ("attn.qkv.weight", "mlp.fc2.weight", "mlp.fc2.bias"):
            sizes = moved[f"encoder.blocks.{block}.{name}"].abs()
            assert float(sizes.mean()) == pytest.approx(rate, rel=1e-3)
            assert float(sizes.std()) < 1e-2 * rate
