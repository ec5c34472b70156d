"""The chain on a schedule: a DVC experiment of each run, and the gate before the line."""

from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from prefect import flow
from prefect.runtime.flow_run import get_scheduled_start_time
from pydantic import Field

from dbp_mae.data.manifest import read_manifest
from dbp_mae.errors import UserError
from dbp_mae.evaluation.evaluate import evaluate
from dbp_mae.params import load_params
from pipelines.artifacts import DATA, METRICS, VALIDATED
from pipelines.flows.chain import (
    check_values_committed,
    is_saved,
    run_chain,
    save_experiment,
)
from pipelines.flows.exclusive import exclusive
from pipelines.flows.outcome import one_sentence, run_from_shell
from pipelines.flows.promotion import incomparable, promote
from pipelines.flows.results import publish_results
from pipelines.summary import read_json


def experiment_name() -> str:
    """Name the run and its experiment after the time it was due (UTC): retrain-2026-11-22-0200."""
    return f"retrain-{get_scheduled_start_time():%Y-%m-%d-%H%M}"


@flow(flow_run_name=experiment_name)
@exclusive
@one_sentence
def retrain(tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.0) -> str:
    """Bring the chain up to date; promote the new model unless it lost more mIoU than `tolerance`.

    Each promotion may lose that much anew: a tolerance above 0 does not bound the loss over many.
    It trains with committed values. What neither a commit nor an experiment holds yet is saved as a DVC
    experiment of the run's name.
    """
    check_values_committed()
    run_chain()
    if not is_saved():
        save_experiment(experiment_name())
    publish_results()
    manifest = read_manifest(VALIDATED)
    return promote(_miou(read_json(METRICS)), manifest, held_out_miou, tolerance)


def held_out_miou(model: Path, held_out: pd.DataFrame) -> float:
    """Measure a model file on these rows of the manifest.

    Raises:
        UserError: it cannot be measured, because the classes are others, for example.
    """
    params = load_params()
    try:
        result = evaluate(model, None, held_out, params.data.source, DATA, params)
        return _miou(result.metrics)
    except UserError as error:
        raise incomparable(str(error).rstrip(".")) from None


def _miou(metrics: dict[str, Any]) -> float:
    if metrics["miou"] is None:
        raise UserError(
            "No class is labelled in the held-out images, so models cannot be compared: label more images."
        )
    return metrics["miou"]


if __name__ == "__main__":
    run_from_shell(retrain)
