"""How soon decorrelation reaches a tuned optimizer's best loss, in steps, seconds and joules:

    python -m benchmarks.convergence --data wirebond
    python -m benchmarks.convergence --data bsdata FOLDER --pretrain model=base batch=256 precision=auto

AdamW and Muon, each tuned, without decorrelation and with both updates of R, and plain Muon with a
larger `rest_rate`, in turns on one device (`dbp_mae.comparison`). --variants names some of them, or one
with settings of its own, such as "Muon, function-preserving; steps=140". The warm-up is each optimizer's
own share of the steps; other values not named are those of params.yaml. A run that was cut off goes on
when the command is given again. Without --finetune only packages that train are needed.
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

from benchmarks.command import print_hardware, run
from benchmarks.results_file import write_results
from dbp_mae.comparison.compare import compare
from dbp_mae.comparison.findings import headline, sentences, share, table
from dbp_mae.comparison.plan import Plan, changed
from dbp_mae.comparison.results import Results
from dbp_mae.comparison.subject import Subject
from dbp_mae.data.ingest import ingest
from dbp_mae.data.manifest import write_manifest
from dbp_mae.data.wirebond import render_dataset
from dbp_mae.errors import UserError
from dbp_mae.params import Params, RenderParams, check_block, load_params
from dbp_mae.training.checkpoint import ROOT

DATA: dict[str, dict[str, Any]] = {
    "wirebond": {
        "classes": ["wire", "ball", "wedge", "epoxy"],
        "defects": ["epoxy"],
        "channels": 1,
        "val_share": 0.11,
        "test_share": 0.67,
    },
    "bsdata": {
        "classes": ["Pitting"],
        "defects": ["Pitting"],
        "channels": 3,
        "val_share": 0.15,
        "test_share": 0.25,
    },
}
"""What describes the images, with the shares of the recipes."""
OPTIMIZERS = {"AdamW": [1e-3, 2e-3, 4e-3], "Muon": [4e-3, 8e-3, 1.6e-2]}
"""With the learning rates that the tuning starts from."""
WARMUP = {"AdamW": 0.4, "Muon": 0.025}
"""Share of the steps. AdamW needs a long warm-up, Muon does as well with a short one (notes.md)."""
UPDATES: dict[str, dict[str, Any]] = {  # by what they add to the optimizer's name
    "": {"update": "none"},
    ", paper": {"update": "paper", "eps": 1e-3, "total_eps": None, "every": 1},
    ", function-preserving": {
        "update": "function-preserving",
        "eps": None,
        "total_eps": 3.0,
        "every": 4,
    },
}
VARIANTS = [optimizer + suffix for optimizer in OPTIMIZERS for suffix in UPDATES]
RIVALS = ["Muon; rest_rate=0.5"]
"""Plain ones in other settings, which on some data are the ones to beat."""
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
    if "warmup_steps" in pretrain:
        raise UserError(
            "--pretrain warmup_steps: each optimizer has a warm-up of its own here; leave it out."
        )
    pretrain["warmup_steps"] = 0  # that of params.yaml may be longer than the steps
    plan = check_block(
        {
            "baseline": "AdamW",
            "pretrain": pretrain,
            "variants": {name: _variant(name, rates) for name in arguments.variants},
            "tuning": {"seed": 0, "extensions": 0 if arguments.toy else 4},
            "seeds": list(range(1, arguments.seeds + 1)),
            "finetune": {"seeds": [0]} if arguments.finetune else None,
        },
        Plan,
        "The benchmark",
    )
    plan.settings(plan.common(params).pretrain)  # refuses a bad value before images are rendered
    return plan


def find_source(name: str, folder: list[str], render: RenderParams) -> Path:
    """Return the folder of a data set's images; the rendered one is made where it is missing.

    Raises:
        UserError: the data set is unknown, or its folder is not given.
    """
    if name not in DATA:
        raise UserError(f"--data {name} is unknown: name one of {', '.join(DATA)}.")
    if name != "wirebond":
        if len(folder) != 1:
            raise UserError(f"--data {name} needs its folder: --data {name} FOLDER.")
        return Path(folder[0])
    made = ROOT / f"wirebond-{sha256(render.model_dump_json().encode()).hexdigest()[:12]}"
    if not made.exists():
        ROOT.mkdir(exist_ok=True)
        with TemporaryDirectory(dir=ROOT) as scratch:
            render_dataset(Path(scratch) / "rendered", render)
            (Path(scratch) / "rendered").rename(made)
    return made


def _variant(name: str, rates: slice) -> dict[str, Any]:
    way, *texts = map(str.strip, name.split(";"))
    optimizer, comma, update = way.partition(",")
    if optimizer not in OPTIMIZERS or comma + update not in UPDATES:
        raise UserError(
            f"--variants {name!r} is unknown: name some of {', '.join(map(repr, VARIANTS + RIVALS))}."
        )
    settings = _settings(texts, f"--variants {name!r}")
    if decided := settings.keys() & {"optimizer", "decorrelation", "warmup_steps"}:
        raise UserError(
            f"--variants {name!r}: {min(decided)} follows from the name before the semicolon; leave it out."
        )
    return {
        "learning_rates": OPTIMIZERS[optimizer][rates],
        "warmup": WARMUP[optimizer],
        "pretrain": {
            "optimizer": optimizer.lower(),
            "decorrelation": UPDATES[comma + update],
            **settings,
        },
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
    """Compare, and write benchmarks/results/convergence-<data>-<device>.json as it grows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", default=["wirebond"], metavar=("NAME", "FOLDER"))
    parser.add_argument("--pretrain", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--variants", nargs="+", default=VARIANTS + RIVALS, metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3, help="how many are measured")
    parser.add_argument("--finetune", action="store_true", help="compare the held-out mIoU too")
    parser.add_argument("--toy", action="store_true", help="a minute's worth, to see that it runs")
    arguments = parser.parse_args()
    name, *folder = arguments.data
    params = load_params()
    if arguments.toy:
        params = changed(params, TOY, "The toy")
    plan = make_plan(arguments, params)
    source = find_source(name, folder, params.render)
    params = changed(params, {"data": {**DATA[name], "source": source}}, f"--data {name}")
    with ingested(params) as subject:
        for results in compare(plan, params, subject, print):
            path = write_results(
                f"convergence{'-toy' * arguments.toy}-{name}",
                headline(results),
                table(results),
                comparison=json.loads(results.model_dump_json()),
            )
    print_hardware()
    print(ratios(results).to_string())
    print(*sentences(results), path, sep="\n")


if __name__ == "__main__":
    run(main)
