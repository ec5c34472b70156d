"""What decorrelation costs a training step: `python -m benchmarks.step_overhead --models small base`.

The untouched model and the variants take turns in one run, with the very step of the training; the
figure is the median over the rounds of the ratio to the untouched model's step in the same round.
"""

import argparse
from itertools import product
from typing import Any

from benchmarks.command import create_parser, report, run
from benchmarks.training_step import CYCLE, add_arguments, step_params, stepper, with_update
from benchmarks.turns import add_rounds, ratios, take_turns
from dbp_mae.params import PretrainParams
from dbp_mae.training.precision import resolve

VARIANTS = {
    "untouched": ("none", 1),
    "paper": ("paper", 1),
    "function-preserving": ("function-preserving", 1),
    f"function-preserving, every {CYCLE}": ("function-preserving", CYCLE),
}
DECODERS = {"paper": (512, 8), "light": (64, 1)}
"""Width and depth: that of the MAE paper, and that of the default recipe, which hides the least."""


def add_cases(parser: argparse.ArgumentParser) -> None:
    """Add the models, optimizers and decoders to compare with."""
    parser.add_argument("--models", nargs="+", default=["small"], help="as pretrain.model")
    parser.add_argument(
        "--optimizers", nargs="+", default=["muon", "adamw"], help="as pretrain.optimizer"
    )
    parser.add_argument(
        "--decoders", nargs="+", default=list(DECODERS), choices=DECODERS, help="light hides less"
    )


def case_params(
    model: str, optimizer: str, decoder: str, arguments: argparse.Namespace, **changes: Any
) -> PretrainParams:
    """Return the settings of a step of the untouched model with one of each."""
    width, depth = DECODERS[decoder]
    sizes = {"model": model, "decoder_dim": width, "decoder_depth": depth}
    return step_params(arguments, optimizer=optimizer, **sizes, **changes)


def measure(
    model: str, optimizer: str, decoder: str, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Return a row a variant: median seconds a step and the ratio to the untouched model."""
    params = case_params(model, optimizer, decoder, arguments, compile=arguments.compile)
    times = take_turns(
        "step_overhead",
        {**params.model_dump(), "channels": arguments.channels},
        lambda: {
            name: stepper(with_update(params, *variant), arguments.channels)
            for name, variant in VARIANTS.items()
        },
        arguments.rounds,
        arguments.warmup,
        CYCLE,
    )
    to_untouched = ratios(times, "untouched")
    return [
        {
            "model": model,
            "optimizer": optimizer,
            "decoder": decoder,
            "batch": params.batch,
            "precision": params.precision,
            "compiled": params.compile,
            "variant": name,
            "rounds": len(times),
            "seconds": float(times[name].median()),
            "ratio": float(to_untouched["median"][name]),
            "lowest": float(to_untouched["min"][name]),
            "highest": float(to_untouched["max"][name]),
        }
        for name in VARIANTS
    ]


def headline(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the ratio of each variant by model, optimizer and decoder."""
    keys = ("model", "optimizer", "decoder", "variant")
    return {
        ", ".join(row[key] for key in keys): round(row["ratio"], 3)
        for row in rows
        if row["variant"] != "untouched"
    }


def main() -> None:
    """Measure, print the table and write the results, anew after each model, decoder and optimizer."""
    parser = create_parser(__doc__)
    add_arguments(parser)
    add_rounds(parser)
    add_cases(parser)
    parser.add_argument("--compile", action="store_true", help="compile the models")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for case in product(arguments.models, arguments.optimizers, arguments.decoders):
        rows += measure(*case, arguments)
        name = f"step_overhead{'_compiled' * arguments.compile}-{resolve(arguments.precision)}"
        report(name, headline(rows), rows)


if __name__ == "__main__":
    run(main)
