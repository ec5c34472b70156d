"""What the DVC stages share: where the validated images stand, and what surrounds a stage's one call."""

from collections.abc import Callable
from pathlib import Path

from dbp_mae.params import Params, load_params
from pipelines.ending import plain_ending

DATA = Path("data")
VALIDATED = DATA / "validated.parquet"
"""The manifest of the images that training and evaluation may use."""


def run(stage: Callable[[Params], None]) -> None:
    """Run a stage with params.yaml."""
    with plain_ending():
        stage(load_params())
