"""How soon decorrelation reaches a tuned optimizer's best loss, in steps, seconds and joules:

    python -m benchmarks.convergence --data wirebond
    python -m benchmarks.convergence --data bsdata FOLDER --pretrain model=base batch=256 precision=auto

The variants of conf/comparison/default.yaml, each tuned, in turns on one device (`dbp_mae.comparison`).
--variants names some of them, or one with settings of its own, such as "Muon, function-preserving;
steps=140". The images are described as in the recipe of their name; other values not named are those of
params.yaml. A run that was cut off goes on when the command is given again. Without --finetune only
packages that train are needed.
"""

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import yaml

from benchmarks.command import create_parser, print_hardware, run
from benchmarks.results_file import write_results
from dbp_mae.comparison.compare import compare
from dbp_mae.comparison.figures import headline, table
from dbp_mae.comparison.findings import sentences
from dbp_mae.comparison.plan import Plan, changed
from dbp_mae.comparison.results import Results
from dbp_mae.comparison.spread import share
from dbp_mae.comparison.subject import Subject
from dbp_mae.data.ingest import ingest
from dbp_mae.data.manifest import write_manifest
from dbp_mae.data.wirebond import render_dataset
from dbp_mae.environment import code_sha256
from dbp_mae.errors import UserError
from dbp_mae.params import Params, RenderParams, check_block, load_params
from dbp_mae.training.checkpoint import ROOT


def _read(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return values


CONF = Path(__file__).parents[1] / "conf"
PLAN = _read(CONF / "comparison/default.yaml")
"""The pipeline's own comparison, whose variants these are."""
OWN = {"optimizer", "decorrelation", "warmup_steps"}
"""What its name in the plan says of a variant."""
TOY: dict[str, dict[str, Any]] = {
    "render": {"devices": 6, "views": 2, "labelled_share": 0.9, "size": 96},
    "pretrain": {"steps": 4, "warmup_steps": 1, "batch": 8, "crop": 32, "validate_every": 2},
    "finetune": {"steps": 2, "warmup_steps": 1, "batch": 2, "tile": 32, "validate_every": 2},
    "export": {"overlap": 8},
}


def make_plan(arguments: argparse.Namespace, params: Params) -> Plan:
    """Return the comparison that the arguments ask for.

    Raises:
        UserError: a value is out of range.
    """
    rates = slice(1 if arguments.toy else None)
    pretrain = _settings(arguments.pretrain, "--pretrain")
    if own := pretrain.keys() & OWN:
        raise UserError(f"--pretrain {min(own)}: each variant has its own here; leave it out.")
    pretrain["warmup_steps"] = 0  # that of params.yaml may be longer than the steps
    plan = check_block(
        {
            "baseline": PLAN["baseline"],
            "pretrain": pretrain,
            "variants": {name: _variant(name, rates) for name in arguments.variants},
            "tuning": {
                "seeds": arguments.tuning_seeds,
                "extensions": 0 if arguments.toy else PLAN["tuning"]["extensions"],
            },
            "seeds": arguments.seeds,
            "finetune": PLAN["finetune"] if arguments.finetune else None,
        },
        Plan,
        "The benchmark",
    )
    plan.settings(plan.common(params).pretrain)  # refuses a bad value before images are rendered
    return plan


def describe(name: str, folder: list[str], render: RenderParams) -> dict[str, Any]:
    """Return the block `data` for the images of a recipe; those of wirebond are rendered where missing.

    Raises:
        UserError: the recipe is unknown, or its folder is not given.
    """
    recipes = {path.stem: _read(path) for path in sorted(CONF.glob("recipe/*.yaml"))}
    whole = [recipe for recipe, values in recipes.items() if "defaults" not in values]
    if name not in whole:
        raise UserError(f"--data {name} is unknown: name one of {', '.join(whole)}.")
    if name != "wirebond" and len(folder) != 1:
        raise UserError(f"--data {name} needs its folder: --data {name} FOLDER.")
    source = _rendered(render) if name == "wirebond" else Path(folder[0])
    return _read(CONF / "config.yaml")["data"] | recipes[name]["data"] | {"source": source}


def _rendered(render: RenderParams) -> Path:
    """Return the folder of the rendered images, which is made where it is missing."""
    conditions = code_sha256() + render.model_dump_json()
    made = ROOT / f"wirebond-{sha256(conditions.encode()).hexdigest()[:12]}"
    if not made.exists():
        ROOT.mkdir(exist_ok=True)
        with TemporaryDirectory(dir=ROOT) as scratch:
            render_dataset(Path(scratch) / "rendered", render)
            (Path(scratch) / "rendered").rename(made)
    return made


def _variant(name: str, rates: slice) -> dict[str, Any]:
    way, *texts = map(str.strip, name.split(";"))
    if way not in PLAN["variants"]:
        known = ", ".join(map(repr, PLAN["variants"]))
        raise UserError(f"--variants {name!r} is unknown: name some of {known}.")
    variant = PLAN["variants"][way]
    settings = _settings(texts, f"--variants {name!r}")
    if decided := settings.keys() & OWN:
        raise UserError(
            f"--variants {name!r}: {min(decided)} follows from the name before the semicolon; leave it out."
        )
    return variant | {
        "learning_rates": variant["learning_rates"][rates],
        "pretrain": variant["pretrain"] | settings,
    }


@contextmanager
def ingested(params: Params) -> Iterator[Subject]:
    """Ingest the images; what cannot be read is left out, for no gate stands before this."""
    with TemporaryDirectory() as scratch:
        frame = ingest(params.data.source, params.data, Path(scratch) / "masks")
        sound = frame["image_error"].isna() & frame["label_error"].isna()
        frame = frame[sound & (frame["label_state"] != "excluded")].reset_index(drop=True)
        manifest = Path(scratch) / "manifest.parquet"
        write_manifest(frame, manifest)
        yield Subject(manifest, frame, Path(scratch))


def ratios(results: Results) -> pd.DataFrame:
    """Return each variant's time to the best loss of each target, as a share of the target's own."""
    return pd.DataFrame(
        {
            f"time to {target}'s best": share(results.ratio(variant, target, "seconds"))
            for target in results.plain
        }
        | {"a step costs": share(results.step_cost(variant, results.plan.baseline))}
        for variant in results.settings
    ).set_axis(list(results.settings))


def _settings(texts: list[str], option: str) -> dict[str, Any]:
    """Return the values by key of texts such as steps=2000."""
    for text in texts:
        if "=" not in text:
            raise UserError(f"{option}: {text!r} is not KEY=VALUE, such as steps=2000.")
    return {key: yaml.safe_load(value) for key, _, value in (text.partition("=") for text in texts)}


def main() -> None:
    """Compare, and write benchmarks/results/convergence-<name>-<device>.json as it grows."""
    parser = create_parser(__doc__)
    parser.add_argument(
        "--data",
        nargs="+",
        default=["wirebond"],
        metavar=("NAME", "FOLDER"),
        help="a recipe and its images",
    )
    parser.add_argument(
        "--pretrain", nargs="*", default=[], metavar="KEY=VALUE", help="changes of params.yaml"
    )
    parser.add_argument(
        "--variants", nargs="+", default=list(PLAN["variants"]), metavar="NAME", help="to compare"
    )
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=PLAN["seeds"], help="of the measured runs"
    )
    parser.add_argument(
        "--tuning-seeds",
        nargs="+",
        type=int,
        default=PLAN["tuning"]["seeds"],
        help="of the runs that choose the learning rates",
    )
    parser.add_argument("--finetune", action="store_true", help="compare the held-out mIoU too")
    parser.add_argument("--name", help="of the results, where not the recipe's")
    parser.add_argument("--toy", action="store_true", help="a minute's worth, to see that it runs")
    arguments = parser.parse_args()
    name, *folder = arguments.data
    params = load_params()
    if arguments.toy:
        params = changed(params, TOY, "The toy")
    plan = make_plan(arguments, params)
    data = describe(name, folder, params.render)
    params = check_block(
        params.model_dump(by_alias=True) | {"data": data}, Params, f"--data {name}"
    )
    with ingested(params) as subject:
        for results in compare(plan, params, subject, print):
            path = write_results(
                f"convergence{'-toy' * arguments.toy}-{arguments.name or name}",
                headline(results),
                table(results),
                comparison=json.loads(results.model_dump_json()),
            )
    print_hardware()
    print(ratios(results).to_string())
    print(*sentences(results), path, sep="\n")


if __name__ == "__main__":
    run(main)
