"""The default recipe's parameters, whatever params.yaml holds at the moment."""

import tempfile
from functools import cache
from pathlib import Path

from dbp_mae.params import Params, load_params
from pipelines.compose import compose

CONF = Path(__file__).parents[1] / "conf"


def write_default_params(folder: Path) -> Path:
    """Write params.yaml into a folder."""
    file = folder / "params.yaml"
    compose(file, [], CONF)
    return file


@cache
def default_params() -> Params:
    """Compose conf/ without any override."""
    with tempfile.TemporaryDirectory() as folder:
        return load_params(write_default_params(Path(folder)))
