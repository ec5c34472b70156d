"""A loss that survives 0.3 % foreground."""

import torch
import torch.nn.functional as F
from segmentation_models_pytorch.losses import DiceLoss
from torch import Tensor, nn

from dbp_mae.data.labels import IGNORED

FOREGROUND_WEIGHT = 2.0


class SegmentationLoss(nn.Module):
    """Cross-entropy, which trains every pixel, plus Dice, whose value does not depend on a class's share.

    Pixels of the foreground count twice in the cross-entropy, which else learns the background
    alone at first. Dice is taken over the whole batch (after V-Net, arXiv 1606.04797), on the
    foreground classes.
    """

    weight: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.tensor([1.0, *[FOREGROUND_WEIGHT] * classes]))
        self.dice = DiceLoss(
            mode="multiclass", classes=list(range(1, classes + 1)), ignore_index=IGNORED
        )

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits, B K+1 H W, against masks, B H W; 255 is ignored."""
        logits = logits.float()
        entropy = F.cross_entropy(
            logits, target, self.weight, ignore_index=IGNORED, reduction="sum"
        )
        known = (target != IGNORED).sum().clamp(min=1)
        dice: Tensor = self.dice(logits, target)
        return entropy / known + dice
