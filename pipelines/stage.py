"""What every DVC stage does around its one library call."""

import sys
from collections.abc import Callable

from dbp_mae.errors import UserError
from dbp_mae.interruption import Interrupted
from dbp_mae.params import Params, load_params


def run(stage: Callable[[Params], None]) -> None:
    """Run a stage with params.yaml; what a user has to know ends it in one sentence, with status 1."""
    try:
        stage(load_params())
    except Interrupted as stop:
        sys.exit(f"stopped: {stop}")
    except KeyboardInterrupt:
        sys.exit("stopped: the same command goes on from what was kept last.")
    except UserError as error:
        sys.exit(f"error: {error}")
