"""What surrounds a stage's one call."""

from collections.abc import Callable

from dbp_mae.params import Params, load_params
from pipelines.ending import plain_ending


def run(stage: Callable[[Params], None]) -> None:
    """Run a stage with params.yaml."""
    with plain_ending():
        stage(load_params())
