"""The machine's mean power, from which energy follows where no counter is read."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from dbp_mae import emissions
from dbp_mae.comparison.measurement import Measurement
from dbp_mae.comparison.results import EnergySource
from dbp_mae.params import EmissionsParams


@contextmanager
def estimated_power(
    params: EmissionsParams, measured: list[str], folder: Path
) -> Iterator[Callable[[], float | None]]:
    """Give codecarbon's mean power in watts so far; None where counters are read, or without it.

    Args:
        measured: the parts whose counters are read.
        folder: where the estimate of a comparison goes on after a kill.
    """
    if measured or find_spec("codecarbon") is None:
        yield lambda: None
        return
    with emissions.measure(params, "compare", folder) as meter:
        yield lambda: meter.emissions.watts


def with_estimate(run: Measurement, source: EnergySource) -> Measurement:
    """Return a run with joules in proportion to its seconds, where no counter was read."""
    if source.kind != "estimated" or source.watts is None:
        return run
    rows = [row.model_copy(update={"joules": row.seconds * source.watts}) for row in run.rows]
    return run.model_copy(update={"rows": rows})
