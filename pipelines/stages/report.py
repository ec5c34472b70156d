"""Stage report: all that the pipeline wrote -> the page, the model card, the energy bill."""

import json
from datetime import date
from pathlib import Path

from dbp_mae.files import write_text
from dbp_mae.pages.report import emissions_bill, load_run, model_card, page
from dbp_mae.params import Params
from pipelines.artifacts import EMISSIONS, REPORT
from pipelines.stage import run


def main(params: Params) -> None:
    """Write reports/index.html, model_card.md and emissions.json."""
    result = load_run(Path())
    write_text(REPORT, page(result, params, made=date.today()))
    write_text(REPORT.with_name("model_card.md"), model_card(result, params))
    write_text(EMISSIONS, json.dumps(emissions_bill(result), indent=2) + "\n")
    print(f"{REPORT} is written: open it in a browser.")


if __name__ == "__main__":
    run(main)
