"""The losses of each step of six tiny trainings, kept in tests/golden.

A change that is to change nothing keeps them. After one that is to change the method, write them
again and commit both: PYTHONPATH=.:tests python tests/pretraining/golden_losses.py
"""

import json
from pathlib import Path
from unittest.mock import patch

from tiny import start, step, tiny_params
from torch import Tensor

from dbp_mae.files import write_text

FILE = Path(__file__).parents[1] / "golden/pretraining_losses.json"
BLOCKS = ["qkv", "proj", "fc1", "fc2"]
ALL = ["patch_embed", *BLOCKS]
LAYERS = {"none": ALL, "paper": BLOCKS, "function-preserving": ALL}
VARIANTS = {
    f"{optimizer}, {update}": tiny_params(
        optimizer=optimizer, update=update, eps=0.02, layers=layers
    )
    for optimizer in ("adamw", "muon")
    for update, layers in LAYERS.items()
}


def losses(variant: str) -> list[float]:
    """Return the loss of every step of a variant, Muon's products in float32.

    In bfloat16 the order in which a processor sums changes the tenth loss by more than the tolerance.
    """
    params = VARIANTS[variant]
    training, batches = start(params)
    with patch.object(Tensor, "bfloat16", Tensor.float):
        return [step(training, batches) for _ in range(params.steps)]


if __name__ == "__main__":
    figures = {name: [float(f"{loss:.7g}") for loss in losses(name)] for name in VARIANTS}
    write_text(FILE, json.dumps(figures, indent=1) + "\n")
