"""What decorrelation adds to a step's arithmetic, counted: `python -m benchmarks.step_flops --models base`.

PyTorch counts what matrix products and attention compute, two operations a multiplication with its
addition. So many come with each image of a batch, and so many with the step, whatever its batch (the
optimizer's, R's): two small batches tell both, and with them the figure of any batch, on any machine.
"""

import argparse
from collections.abc import Callable
from itertools import product
from typing import Any

from torch.utils.flop_counter import FlopCounterMode

from benchmarks.command import create_parser, report, run
from benchmarks.step_overhead import VARIANTS, add_cases, case_params, headline
from benchmarks.training_step import add_arguments, stepper, with_update
from dbp_mae.params import PretrainParams

COUNTED = (2, 4)
"""Images of the batches that are counted."""


def flops(params: PretrainParams, channels: int) -> float:
    """Return the operations of a training step with `params.batch` images, in the mean over R's steps."""
    few, more = (
        _of_step(params.model_copy(update={"batch": images}), channels) for images in COUNTED
    )
    per_image = (more - few) / (COUNTED[1] - COUNTED[0])
    return few + (params.batch - COUNTED[0]) * per_image


def _of_step(params: PretrainParams, channels: int) -> float:
    step, every = stepper(params, channels), params.decorrelation.every
    with_move, without = _counted(step), _counted(step)  # R moves in the first step
    return (with_move + (every - 1) * without) / every


def _counted(act: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        act()
    return counter.get_total_flops()


def count(
    model: str, optimizer: str, decoder: str, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Return a row a variant: the operations of a step, and their ratio to the untouched model's."""
    params = case_params(model, optimizer, decoder, arguments)
    counts = {
        name: flops(with_update(params, *variant), arguments.channels)
        for name, variant in VARIANTS.items()
    }
    return [
        {
            "model": model,
            "optimizer": optimizer,
            "decoder": decoder,
            "batch": params.batch,
            "variant": name,
            "teraflops": counted / 1e12,
            "ratio": counted / counts["untouched"],
        }
        for name, counted in counts.items()
    ]


def main() -> None:
    """Count, print the table and write the results, anew after each model, decoder and optimizer."""
    parser = create_parser(__doc__)
    add_arguments(parser)
    add_cases(parser)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for case in product(arguments.models, arguments.optimizers, arguments.decoders):
        rows += count(*case, arguments)
        report("step_flops", headline(rows), rows)


if __name__ == "__main__":
    run(main)
