"""Have the images on the line moved away from those the model was trained on?"""

import json
import os
from pathlib import Path

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.states import Failed, State

from dbp_mae.errors import UserError
from dbp_mae.inspection.drift import STATISTICS, drift
from dbp_mae.inspection.segmenter import Segmenter
from pipelines.flows.outcome import one_sentence, run_from_shell
from pipelines.flows.promotion import served_model

LOG_VARIABLE = "DBP_MAE_INSPECTION_LOG"


@flow
@one_sentence
def monitor(log: Path | None = None, window: int = 500) -> str | State:
    """Compare the last `window` inspections with the served model's reference.

    The log is the service's, in JSON lines; by default the file that DBP_MAE_INSPECTION_LOG names.
    The run ends Failed, under the name Drifted, when a statistic has moved.
    """
    observed = read_inspections(log or _log_of_service())[-window:]
    card = Segmenter.load(served_model(), gpu=False).card
    judged = drift(observed, card.reference, card.training_images)
    create_table_artifact(
        key="drift",
        description=f"The last {len(observed)} inspections against the training images",
        table=[
            {
                "statistic": result.statistic,
                "stability index": round(result.psi, 3),
                "threshold": round(result.threshold, 3),
                "drifted": "yes" if result.drifted else "no",
            }
            for result in judged
        ],
    )
    moved = [result.statistic for result in judged if result.drifted]
    if moved:
        return Failed(
            name="Drifted",
            message=f"{', '.join(moved)} of the last {len(observed)} images moved away from the "
            "training images: check light, focus and parts, then label some and retrain.",
        )
    return f"The last {len(observed)} images look like the training images."


def read_inspections(log: Path) -> list[dict[str, float]]:
    """Read the image statistics of each inspection, oldest first.

    Raises:
        UserError: the log is missing or empty, or a line is not an inspection.
    """
    try:
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        raise UserError(f"{log} is missing: has the service inspected anything yet?") from None
    # The service may be writing the last line at this moment.
    whole = [line for line in lines if line.endswith("\n")]
    if not whole:
        raise UserError(f"{log} is empty: has the service inspected anything yet?")
    return [_statistics(log, number, line) for number, line in enumerate(whole, start=1)]


def _statistics(log: Path, number: int, line: str) -> dict[str, float]:
    try:
        record = json.loads(line)
        return {name: float(record[name]) for name in STATISTICS}
    except (ValueError, TypeError, KeyError):
        raise UserError(
            f"{log}, line {number} is not an inspection (JSON with {', '.join(STATISTICS)}): "
            "remove it, and see what wrote it."
        ) from None


def _log_of_service() -> Path:
    if path := os.environ.get(LOG_VARIABLE):
        return Path(path)
    raise UserError(
        f"No inspection log is named: set {LOG_VARIABLE} as for the service, or give the flow's "
        "parameter log."
    )


if __name__ == "__main__":
    run_from_shell(monitor)
