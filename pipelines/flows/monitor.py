"""Have the images on the line moved away from those the model was trained on?"""

import json
import math
import os
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.states import Completed, Failed, State
from pydantic import Field

from dbp_mae.errors import UserError
from dbp_mae.inspection.drift import LEAST, STATISTICS, drift
from dbp_mae.inspection.segmenter import Segmenter
from pipelines.flows.outcome import one_sentence, run_from_shell
from pipelines.flows.promotion import served_model

LOG_VARIABLE = "DBP_MAE_INSPECTION_LOG"
MODEL_VARIABLE = "DBP_MAE_MODEL"


@dataclass(frozen=True)
class Inspection:
    """What a line of the log tells of an image."""

    time: datetime
    statistics: dict[str, float]


@flow
@one_sentence
def monitor(
    log: Path | None = None, window: int = 500, silence: Annotated[float, Field(gt=0)] = 72
) -> str | State:
    """Compare the last `window` inspections with the reference of the promoted model, or the pipeline's.

    The log is the service's, in JSON lines; by default the file that DBP_MAE_INSPECTION_LOG names,
    as DBP_MAE_MODEL may name the model.
    Lines that are not inspections are skipped, and counted in the message.
    The run ends Failed, under the name Drifted, when a statistic has moved, and under the name Silent, when
    the newest inspection is more than `silence` hours old; and Completed, under the name TooFew, where the
    inspections are too few to tell.
    """
    log = log or _log_of_service()
    observed, skipped = read_inspections(log, window)
    remark = f" Skipped lines that are not inspections: {skipped}." if skipped else ""
    newest = observed[-1].time
    if (datetime.now(UTC) - newest).total_seconds() > 3600 * silence:
        return Failed(
            name="Silent",
            message=f"The newest inspection in {log} is of {newest:%Y-%m-%d %H:%M} UTC, more than "
            f"{silence:g} hours ago: see whether the service runs and can write its log.{remark}",
        )
    if len(observed) < LEAST:
        return Completed(
            name="TooFew",
            message=f"Too few inspections to tell whether images have moved: {len(observed)}, and {LEAST} "
            f"are needed.{remark}",
        )
    model = Path(os.environ.get(MODEL_VARIABLE) or served_model())
    card = Segmenter.load(model, gpu=False).card
    statistics = [inspection.statistics for inspection in observed]
    judged = drift(statistics, card.reference, card.training_images)
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
            f"training images: check light, focus and parts, then label some and retrain.{remark}",
        )
    return f"The last {len(observed)} images look like the training images.{remark}"


def read_inspections(log: Path, window: int) -> tuple[list[Inspection], int]:
    """Read the inspections in the last `window` lines, oldest first.

    Returns:
        the inspections, and how many of the lines are none.

    Raises:
        UserError: the log cannot be read or none of the lines is an inspection; window is too small.
    """
    if window < LEAST:
        raise UserError(f"window is {window}: compare at least {LEAST} inspections.")
    try:
        with log.open("rb") as file:
            # The service may be writing the last line at this moment.
            lines = deque((line for line in file if line.endswith(b"\n")), maxlen=window)
    except FileNotFoundError:
        raise UserError(f"{log} is missing: has the service inspected anything yet?") from None
    except OSError as error:
        raise UserError(
            f"{log} cannot be read ({error.strerror}): name the service's log, or let this user read it."
        ) from None
    if not lines:
        raise UserError(f"{log} is empty: has the service inspected anything yet?")
    # A power cut may have left half a line.
    observed = [found for line in lines if (found := _inspection(line))]
    if not observed:
        raise UserError(
            f"{log} has no inspection (JSON with time, {', '.join(STATISTICS)}) in its last "
            f"{len(lines)} lines: see what wrote them."
        )
    return observed, len(lines) - len(observed)


def _inspection(line: bytes) -> Inspection | None:
    try:
        record = json.loads(line)
        time = datetime.fromisoformat(record["time"]).astimezone(UTC)
        statistics = {name: float(record[name]) for name in STATISTICS}
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return Inspection(time, statistics) if all(map(math.isfinite, statistics.values())) else None


def _log_of_service() -> Path:
    if path := os.environ.get(LOG_VARIABLE):
        return Path(path)
    raise UserError(
        f"No inspection log is named: set {LOG_VARIABLE} as for the service, or give the flow's "
        "parameter log."
    )


if __name__ == "__main__":
    run_from_shell(monitor)
