"""Write params.yaml from conf/, as `dvc exp run` does: python -m pipelines.compose recipe=bsdata."""

import sys
from pathlib import Path

import yaml
from dvc.utils.hydra import compose_and_dump
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from dbp_mae.errors import UserError
from dbp_mae.files import atomic_path
from dbp_mae.params import Params, check_block
from pipelines.ending import plain_ending

MISLEADING = ("To append", "Config search path", "provider=", "See https")
"""How the lines begin that Hydra adds for the writers of configurations."""


def compose(output: Path, overrides: list[str], conf: Path = Path("conf")) -> None:
    """Compose conf/config.yaml with Hydra overrides and write the result to `output`, if it can be run.

    Raises:
        UserError: an override names a recipe or a key that conf/ does not have, or a value is out of range.
    """
    try:
        with atomic_path(output) as temporary:
            compose_and_dump(temporary, str(conf.resolve()), None, "config", "", overrides)
            composed = yaml.safe_load(temporary.read_text(encoding="utf-8"))
            check_block(composed, Params, f"{conf} with {overrides}")
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        lines = (line.strip() for line in str(error).splitlines())
        reason = " ".join(line for line in lines if line and not line.startswith(MISLEADING))
        raise UserError(
            f"{conf} does not compose with {overrides}: {reason} Name a file of {conf}/recipe, or a key "
            f"of {conf}/config.yaml."
        ) from None


if __name__ == "__main__":
    with plain_ending():
        compose(Path("params.yaml"), sys.argv[1:])
