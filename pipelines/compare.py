"""Does decorrelation pay on these data, in time and energy? `python -m pipelines.compare [FILE]`

Runs the variants that FILE names, on data/validated.parquet and with params.yaml, and writes
reports/comparison/: index.html for people, comparison.json for git. A run that was cut off goes on
where it was when the command is given again. This is no queue of DVC experiments on purpose: the variants
take turns on one device, so that what slows the machine for a while slows all, while a queue would run
them one after another or at once.
"""

import argparse
import json
from datetime import date
from functools import reduce
from pathlib import Path
from typing import Any

import yaml

from dbp_mae.comparison.compare import compare
from dbp_mae.comparison.figures import headline, table
from dbp_mae.comparison.findings import sentences
from dbp_mae.comparison.page import page
from dbp_mae.comparison.plan import load_plan
from dbp_mae.comparison.results import Results
from dbp_mae.comparison.subject import Subject
from dbp_mae.data.manifest import read_manifest
from dbp_mae.errors import UserError
from dbp_mae.files import write_text
from dbp_mae.params import load_params
from pipelines.artifacts import DATA, VALIDATED
from pipelines.ending import plain_ending

DEFAULT = Path("conf/comparison/default.yaml")
FOLDER = Path("reports/comparison")
FIGURES = FOLDER / "comparison.json"
CONDITIONS = ("plan", "settings", "recipe", "environment", "data")
"""What makes two comparisons one, begun again."""
LOCK, PARAMS = Path("dvc.lock"), Path("params.yaml")


def main(file: Path) -> None:
    """Run the comparison of a file; write page and figures whenever they have grown."""
    plan, params = load_plan(file), load_params()
    check_validated()
    subject = Subject(VALIDATED, read_manifest(VALIDATED), DATA)
    for results in compare(plan, params, subject, print):
        write(results)
    print(*sentences(results), sep="\n")
    print(f"{FOLDER / 'index.html'} is written: open it in a browser.")


def check_validated() -> None:
    """Refuse images that were validated under other values than params.yaml has; dvc.lock tells.

    Raises:
        UserError: they were.
    """
    if not LOCK.exists():
        return
    stages = yaml.safe_load(LOCK.read_text())["stages"]
    present = yaml.safe_load(PARAMS.read_text())
    for stage in ("ingest", "validate"):
        for key, value in stages.get(stage, {}).get("params", {}).get(PARAMS.name, {}).items():
            if reduce(dict.__getitem__, key.split("."), present) != value:
                raise UserError(
                    f"{VALIDATED} was made under another {key} than {PARAMS} has now: run `dvc repro "
                    "validate` first, or `make params RECIPE=NAME` for the recipe of the last run."
                )


def write(results: Results) -> None:
    """Write reports/comparison/, unless more of the same comparison stands there: it comes to that again."""
    figures = {
        "headline": headline(results),
        "rows": table(results),
        **json.loads(results.model_dump_json()),
    }
    if _holds_more(figures):
        return
    write_text(FIGURES, json.dumps(figures, indent=1) + "\n")
    write_text(FOLDER / "index.html", page(results, made=date.today()))


def _holds_more(figures: dict[str, Any]) -> bool:
    """Tell whether the file of figures holds these ones and more."""
    if not FIGURES.exists():
        return False
    earlier = json.loads(FIGURES.read_text())
    same = all(earlier.get(key) == figures[key] for key in CONDITIONS)
    return same and any(
        len(earlier[key]) > len(figures[key]) for key in ("measurements", "finetuned")
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", nargs="?", type=Path, default=DEFAULT, metavar="FILE")
    with plain_ending():
        main(parser.parse_args().file)
