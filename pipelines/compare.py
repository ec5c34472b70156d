"""Does decorrelation pay on these data, in time and energy? `python -m pipelines.compare [FILE]`

Runs the variants that FILE names, on data/validated.parquet and with params.yaml, and writes
reports/comparison/: index.html for people, comparison.json for git. A run that was cut off goes on
where it was when the command is given again. This is no queue of DVC experiments on purpose: the variants
take turns on one device, so that a machine whose speed drifts slows all alike, while a queue would run
them one after another or at once.
"""

import argparse
import json
from datetime import date
from pathlib import Path

from dbp_mae.comparison.compare import compare
from dbp_mae.comparison.findings import headline, sentences, table
from dbp_mae.comparison.page import page
from dbp_mae.comparison.plan import load_plan
from dbp_mae.comparison.results import Results
from dbp_mae.comparison.subject import Subject
from dbp_mae.data.manifest import read_manifest
from dbp_mae.files import write_text
from dbp_mae.params import load_params
from pipelines.ending import plain_ending
from pipelines.stage import DATA, VALIDATED

DEFAULT = Path("conf/comparison/default.yaml")
FOLDER = Path("reports/comparison")


def main(file: Path) -> None:
    """Run the comparison of a file; write page and figures whenever they have grown."""
    plan, params = load_plan(file), load_params()
    subject = Subject(VALIDATED, read_manifest(VALIDATED), DATA)
    for results in compare(plan, params, subject, print):
        write(results)
    print(*sentences(results), sep="\n")
    print(f"{FOLDER / 'index.html'} is written: open it in a browser.")


def write(results: Results) -> None:
    """Write reports/comparison/."""
    figures = {
        "headline": headline(results),
        "rows": table(results),
        **json.loads(results.model_dump_json()),
    }
    write_text(FOLDER / "comparison.json", json.dumps(figures, indent=1) + "\n")
    write_text(FOLDER / "index.html", page(results, made=date.today()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", nargs="?", type=Path, default=DEFAULT, metavar="FILE")
    with plain_ending():
        main(parser.parse_args().file)
