"""A comparison in few figures and in a table, for JSON."""

import math
from typing import Any

from dbp_mae.comparison.findings import sentences
from dbp_mae.comparison.results import QUANTITIES, Results
from dbp_mae.comparison.spread import Spread

NAMES = {"step": "steps", "seconds": "time", "joules": "energy"}
"""What the quantities are called."""


def headline(results: Results) -> dict[str, Any]:
    """Return the few figures to quote: sentences, shares of what each target took itself, and the mIoU."""
    return {
        "sentences": sentences(results),
        "seeds": len(results.seeds),
        "energy": results.energy.kind,
        **{
            f"{variant}: {NAMES[quantity]} to the best loss of {target}": _rounded(
                results.ratio(variant, target, quantity).geometric_mean
            )
            for target in results.targets
            for variant in results.settings
            if variant != target
            for quantity in QUANTITIES
        },
        **{
            f"{variant}: mIoU by encoder": _listed(miou)
            for variant in results.settings
            if (miou := results.miou(variant)).values
        },
    }


def table(results: Results) -> list[dict[str, Any]]:
    """Return a row for each variant and target: what it took, and as a share of the target's own."""
    return [
        {
            "variant": variant,
            "target": target,
            "target_loss": _listed(results.best_loss(target)),
            **{
                f"{NAMES[quantity]}_{name}": _listed(spread(variant, target, quantity))
                for quantity in QUANTITIES
                for name, spread in (("taken", results.to_target), ("ratio", results.ratio))
            },
        }
        for target in results.plain
        for variant in results.settings
    ]


def _listed(spread: Spread) -> list[float | None]:
    """Return the values by seed for JSON; None for never or unknown."""
    return [_rounded(value) for value in spread.values]


def _rounded(value: float | None) -> float | None:
    """Return four significant digits."""
    return float(f"{value:.4g}") if value is not None and math.isfinite(value) else None
