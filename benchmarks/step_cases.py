"""The cases in which a step with decorrelation is held against one without."""

import argparse
from collections.abc import Callable
from itertools import product
from typing import Any

from benchmarks.command import report
from benchmarks.training_step import CYCLE, step_params, with_update
from dbp_mae.params import PretrainParams

UNTOUCHED = "untouched"
VARIANTS = {
    UNTOUCHED: ("none", 1),
    "paper": ("paper", 1),
    "function-preserving": ("function-preserving", 1),
    f"function-preserving, every {CYCLE}": ("function-preserving", CYCLE),
}
DECORRELATED = [name for name in VARIANTS if name != UNTOUCHED]
DECODERS = {"paper": (512, 8), "light": (64, 1)}
"""Width and depth: that of the MAE paper, and that of the default recipe, which hides the least."""
CASE = ("model", "optimizer", "decoder", "variant")

Figures = dict[str, Any]
Measure = Callable[[dict[str, PretrainParams], argparse.Namespace], dict[str, Figures]]
"""From the settings of the variants, the figures of each, the ratio to the untouched one among them."""


def add_cases(parser: argparse.ArgumentParser) -> None:
    """Add the models, optimizers, decoders and variants."""
    parser.add_argument("--models", nargs="+", default=["small"], help="as pretrain.model")
    optimizers = ["muon", "adamw"]
    parser.add_argument(
        "--optimizers", nargs="+", default=optimizers, choices=optimizers, help="of pretrain"
    )
    parser.add_argument(
        "--decoders", nargs="+", default=list(DECODERS), choices=DECODERS, help="light hides less"
    )
    parser.add_argument(
        "--variants",
        nargs="+",
        default=DECORRELATED,
        choices=DECORRELATED,
        help="beside the untouched",
    )


def report_cases(
    name: str, measure: Measure, arguments: argparse.Namespace, **settings: Any
) -> None:
    """Measure case after case; print the table and write the results anew after each.

    `settings` go for all, beside those of the command line.
    """
    rows: list[Figures] = []
    for model, optimizer, decoder in product(
        arguments.models, arguments.optimizers, arguments.decoders
    ):
        width, depth = DECODERS[decoder]
        sizes = {"model": model, "decoder_dim": width, "decoder_depth": depth}
        params = step_params(arguments, optimizer=optimizer, **sizes, **settings)
        variants = {
            variant: with_update(params, *VARIANTS[variant])
            for variant in (UNTOUCHED, *arguments.variants)
        }
        case = {"model": model, "optimizer": optimizer, "decoder": decoder, "batch": params.batch}
        rows += [
            {**case, "variant": key, **value} for key, value in measure(variants, arguments).items()
        ]
        report(name, _headline(rows), rows)


def _headline(rows: list[Figures]) -> dict[str, float]:
    """Return the ratio of each variant by model, optimizer and decoder."""
    return {
        ", ".join(row[key] for key in CASE): round(row["ratio"], 3)
        for row in rows
        if row["variant"] != UNTOUCHED
    }
