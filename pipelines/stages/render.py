"""Stage render: write the embedded default data."""

from pathlib import Path

from dbp_mae.data.wirebond import render_dataset
from dbp_mae.errors import UserError
from dbp_mae.params import Params
from pipelines.stage import run


def main(params: Params) -> None:
    """Write data/wirebond, which takes a while: not before the sources of the later stages are there.

    Those in this folder are DVC's to look after.

    Raises:
        UserError: a source elsewhere is missing.
    """
    for key, source in (("data", params.data.source), ("pretrain", params.pretrain.source)):
        if source.is_absolute() and not source.exists():
            raise UserError(
                f"{key}.source is {source}, which is not there: copy the folder there, or correct "
                f"{key}.source."
            )
    render_dataset(Path("data/wirebond"), params.render)


if __name__ == "__main__":
    run(main)
