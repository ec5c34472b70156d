"""What a run of the pipeline came to, for people: `python -m pipelines.summary`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dbp_mae.errors import UserError
from dbp_mae.pages.formatting import duration, energy, mass
from pipelines.artifacts import EMISSIONS, METRICS, MODEL, REPORT
from pipelines.ending import plain_ending
from pipelines.flows.promotion import served_model


def read_json(path: Path) -> dict[str, Any]:
    """Read a report of the pipeline.

    Raises:
        UserError: it is not there yet, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run the pipeline first (make run).") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON ({error}): run the pipeline again.") from None


def results() -> dict[str, str]:
    """Return the headline figures of reports/, by name, ready to print.

    Raises:
        UserError: the pipeline has not run yet.
    """
    return dict(_quality(read_json(METRICS))) | dict(_cost(read_json(EMISSIONS)))


def stage_minutes() -> dict[str, float]:
    """Return the minutes that each metered stage took.

    Raises:
        UserError: the pipeline has not run yet.
    """
    stages = read_json(EMISSIONS)["stages"]
    return {name: stage["seconds"] / 60 for name, stage in stages.items()}


def _quality(metrics: dict[str, Any]) -> Iterator[tuple[str, str]]:
    defects, images = metrics["defects"], metrics["images"]
    yield "held-out mIoU", _figure(metrics["miou"], "{:.3f}")
    yield "the same from random weights", _figure(metrics["scratch_miou"], "{:.3f}")
    yield "labelled defects found", _share(defects["found_share"], defects["labelled"])
    yield "false defects an image", _figure(defects["false_per_image"], "{:.2f}")
    yield "defective images accepted", _share(images["escape_share"], images["defective"])
    yield "good images rejected", _share(images["overkill_share"], images["good"])


def _cost(emissions: dict[str, Any]) -> Iterator[tuple[str, str]]:
    total = emissions["total"]
    yield "training", duration(total["seconds"])
    yield "electricity", energy(total["kwh"])
    yield "CO2", mass(total["co2_kg"])


def _figure(value: float | None, pattern: str) -> str:
    return "not measured" if value is None else pattern.format(value)


def _share(share: float | None, whole: int) -> str:
    return _figure(share, f"{{:.0%}} of {whole}")


def main() -> None:
    """Print the figures, where the report is, and the command that serves the model."""
    figures = results()
    width = max(map(len, figures))
    for name, figure in figures.items():
        print(f"  {name:<{width}}  {figure}")
    print(f"  {'report':<{width}}  {REPORT.resolve().as_uri()}")
    chosen = f"DBP_MAE_MODEL={MODEL} " if served_model() != MODEL else ""
    print(f"  {'serve it':<{width}}  {chosen}make serve")


if __name__ == "__main__":
    with plain_ending():
        main()
