"""What every DVC stage does around its one library call."""

import sys
from collections.abc import Callable

from dbp_mae.errors import UserError
from dbp_mae.params import Params, load_params


def run(stage: Callable[[Params], None]) -> None:
    """Run a stage with params.yaml; a user's error ends it with one sentence and exit status 1."""
    try:
        stage(load_params())
    except UserError as error:
        sys.exit(f"error: {error}")
