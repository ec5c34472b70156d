"""Stage render: write the embedded default data."""

from pathlib import Path

from dbp_mae.data.wirebond import render_dataset
from dbp_mae.params import Params
from pipelines.stage import run


def main(params: Params) -> None:
    """Write data/wirebond."""
    render_dataset(Path("data/wirebond"), params.render)


if __name__ == "__main__":
    run(main)
