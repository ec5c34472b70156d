"""What every DVC stage does around its one library call."""

from collections.abc import Callable

from dbp_mae.params import Params, load_params
from pipelines.ending import one_sentence


def run(stage: Callable[[Params], None]) -> None:
    """Run a stage with params.yaml."""
    with one_sentence():
        stage(load_params())
