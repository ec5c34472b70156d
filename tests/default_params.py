"""The default recipe's parameters, whatever params.yaml holds at the moment."""

import tempfile
from functools import cache
from pathlib import Path

from dbp_mae.params import Params, load_params
from pipelines.compose import compose

CONF = Path(__file__).parents[1] / "conf"


@cache
def default_params() -> Params:
    """Compose conf/ without any override."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "params.yaml"
        compose(output, [], CONF)
        return load_params(output)
