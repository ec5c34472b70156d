"""The optimizer of fine-tuning by name."""

from typing import Any

from timm.optim import Muon, param_groups_layer_decay
from torch.optim import AdamW, Optimizer

from dbp_mae.params import FinetuneParams
from dbp_mae.segmentation.network import SegmentationNetwork


def create_optimizer(segmenter: SegmentationNetwork, params: FinetuneParams) -> Optimizer:
    """Create the optimizer of a segmenter; its groups hold `lr_scale`, their factor on the learning rate.

    `muon` orthogonalises the updates of the convolutions, as matrices with a row an output channel.
    What timm's rules on shapes except (vectors, a grey image's first convolution, the last one where
    it has fewer than four outputs) gets AdamW with Nesterov's momentum, and so does the encoder: to
    orthogonalise its matrices takes a third more time a step on a CPU. Both read
    `params.learning_rate` on one scale (arXiv 2502.16982).
    """
    groups = _groups(segmenter, params)
    if params.optimizer == "muon":
        return Muon(groups, lr=params.learning_rate, nesterov=True, betas=(0.9, 0.999))
    return AdamW(groups, lr=params.learning_rate, fused=True)


def _groups(segmenter: SegmentationNetwork, params: FinetuneParams) -> list[dict[str, Any]]:
    """Let the learning rate decay from the encoder's last block to its first; the rest has it whole."""
    groups: list[dict[str, Any]] = param_groups_layer_decay(
        segmenter.encoder, weight_decay=params.weight_decay, layer_decay=params.layer_decay
    )
    for group in groups:
        group["lr_scale"] *= params.encoder_rate
        group["use_fallback"] = True  # read by Muon alone: AdamW for these
    fresh = [
        weight for name, weight in segmenter.named_parameters() if not name.startswith("encoder.")
    ]
    return [*groups, {"params": fresh, "weight_decay": params.weight_decay, "lr_scale": 1.0}]
