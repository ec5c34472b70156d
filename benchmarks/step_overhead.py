"""What decorrelation costs a training step: `python -m benchmarks.step_overhead --models small base`.

The untouched model and the variants take turns in one run, with the very step of the training; the
figure is the median over the rounds of the ratio to the untouched model's step in the same round.
"""

import argparse

from benchmarks.command import create_parser, run
from benchmarks.step_cases import UNTOUCHED, Figures, add_cases, report_cases
from benchmarks.training_step import CYCLE, add_arguments, stepper
from benchmarks.turns import add_rounds, ratios, take_turns
from dbp_mae.params import PretrainParams
from dbp_mae.training.precision import resolve


def measure(
    variants: dict[str, PretrainParams], arguments: argparse.Namespace
) -> dict[str, Figures]:
    """Return each variant's median seconds a step and its ratio to the untouched model's."""
    channels, params = arguments.channels, variants[UNTOUCHED]
    times = take_turns(
        "step_overhead",
        {**params.model_dump(), "channels": channels},
        lambda: {name: stepper(settings, channels) for name, settings in variants.items()},
        arguments.rounds,
        arguments.warmup,
        CYCLE,
    )
    to_untouched = ratios(times, UNTOUCHED)
    return {
        name: {
            "precision": params.precision,
            "compiled": params.compile,
            "rounds": len(times),
            "seconds": float(times[name].median()),
            "ratio": float(to_untouched["median"][name]),
            "lowest": float(to_untouched["min"][name]),
            "highest": float(to_untouched["max"][name]),
        }
        for name in variants
    }


def main() -> None:
    """Measure, print the tables and write the results."""
    parser = create_parser(__doc__)
    add_arguments(parser)
    add_rounds(parser)
    add_cases(parser)
    parser.add_argument("--compile", action="store_true", help="compile the models")
    arguments = parser.parse_args()
    name = f"step_overhead{'_compiled' * arguments.compile}-{resolve(arguments.precision)}"
    report_cases(name, measure, arguments, compile=arguments.compile)


if __name__ == "__main__":
    run(main)
