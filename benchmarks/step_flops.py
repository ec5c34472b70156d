"""What decorrelation adds to a step's arithmetic, counted: `python -m benchmarks.step_flops --models base`.

PyTorch counts what matrix products and attention compute, two operations a multiplication with its
addition. So many come with each image of a batch, and so many with the step, whatever its batch (the
optimizer's, R's): two small batches tell both, and with them the figure of any batch, on any machine.
"""

import argparse

from torch.utils.flop_counter import FlopCounterMode

from benchmarks.command import create_parser, run
from benchmarks.step_cases import UNTOUCHED, Figures, add_cases, report_cases
from benchmarks.training_step import add_arguments, stepper
from dbp_mae.params import PretrainParams

COUNTED = (10, 20)
"""Images of the batches that are counted; a tenth of their tokens, which R is moved by, is whole."""


def flops(params: PretrainParams, channels: int) -> float:
    """Return the operations of a training step with `params.batch` images, in the mean over R's moves.

    Exact where `decorrelation.sample` of the tokens of each batch is a whole number.
    """
    few, more = (
        count_flops(params.model_copy(update={"batch": batch}), channels) for batch in COUNTED
    )
    per_image = (more - few) / (COUNTED[1] - COUNTED[0])
    return few + (params.batch - COUNTED[0]) * per_image


def count_flops(params: PretrainParams, channels: int) -> float:
    """Count the operations of training steps from one move of R to the next; return their mean."""
    step, every = stepper(params, channels), params.decorrelation.every
    with FlopCounterMode(display=False) as counter:
        for _ in range(every):
            step()
    return counter.get_total_flops() / every


def compare(
    variants: dict[str, PretrainParams], arguments: argparse.Namespace
) -> dict[str, Figures]:
    """Return each variant's operations a step, and their ratio to the untouched model's."""
    counts = {name: flops(params, arguments.channels) for name, params in variants.items()}
    return {
        name: {"teraflops": count / 1e12, "ratio": count / counts[UNTOUCHED]}
        for name, count in counts.items()
    }


def main() -> None:
    """Count, print the tables and write the results."""
    parser = create_parser(__doc__)
    add_arguments(parser)
    add_cases(parser)
    arguments = parser.parse_args()
    report_cases("step_flops", compare, arguments, accumulate=1, compile=False)


if __name__ == "__main__":
    run(main)
