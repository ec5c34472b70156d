"""All timed benchmarks within a budget of time: `python -m benchmarks.run_all [--data NAME FOLDER]`.

Each runs as a process of its own, with a limit; what one leaves of its time the next ones get. What
was cut off goes on when the command is given again (paper_scale begins anew). `--toy` is a trial at toy
size on any machine.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from benchmarks.command import create_parser
from benchmarks.results_file import RESULTS, device_slug

GRACE = 20
"""Seconds that a benchmark has to end after its time is up."""
SIZE = ["--image", "64", "--patch", "8", "--channels", "1", "--batch", "8"]
DEFAULT = "function-preserving, every 8"
"""The recipes' decorrelation, as benchmarks.step_cases names it."""
VIT_B = [
    *("--variants", "AdamW", "Muon; rest_rate=0.5", "Muon, function-preserving"),
    *("--pretrain", "model=base", "patch=16", "crop=224", "batch=256", "precision=auto"),
    *("decoder_dim=256", "decoder_depth=2", "steps=200", "validate_every=20"),
    *("checkpoint_every=200", "workers=8", "--tuning-seeds", "0"),
]
"""A convergence at a ViT-B's scale. On an H200 a run took 8 to 18 s, and some seconds to begin and end."""
SMALL = [
    *("pretrain.model=nano", "pretrain.crop=32", "pretrain.decoder_dim=32"),
    *("pretrain.decoder_depth=1", "finetune.tile=64", "finetune.decoder_width=8"),
    "export.overlap=16",
]
TOY = [*SIZE, "--rounds", "2", "--warmup", "1", "--precision", "32-true"]


@dataclass(frozen=True)
class Part:
    """A benchmark with its arguments."""

    title: str
    module: str
    arguments: list[str]
    share: float
    """Of the time, in proportion to the shares of the parts that are left."""
    needs: str | None = None
    """A module that may not be importable where only packages that train are installed."""


def full_parts(data: list[str]) -> list[Part]:
    """Return the benchmarks for one large GPU, what counts most first."""
    convergence = ["--data", *data, *VIT_B] if data else []
    finetuning = "dbp_mae.comparison.finetuning"
    overhead = ["--models", "base", "small", "--variants", DEFAULT, "--rounds", "5"]
    loader = ["--workers", "8", "--rounds", "160"]
    imagenet = ["imagenet10", "--batches", "128", "256"]
    return [
        Part("step overhead", "benchmarks.step_overhead", overhead, 5),
        Part("convergence", "benchmarks.convergence", convergence, 20),
        Part("MAE step", "benchmarks.mae_step", [], 2),
        Part("loader", "benchmarks.loader", loader + (["--data", data[1]] if data[1:] else []), 2),
        Part("mIoU", "benchmarks.convergence", [*convergence, "--finetune"], 2, finetuning),
        Part("ImageNet", "benchmarks.paper_scale", imagenet, 1, finetuning),
        Part(
            "ADE20K", "benchmarks.paper_scale", ["ade20k10", "--batches", "8", "16"], 1, finetuning
        ),
    ]


def toy_parts() -> list[Part]:
    """Return the same benchmarks at toy size."""
    toy = ["--toy"]
    finetuning = "dbp_mae.comparison.finetuning"
    overhead = ["--models", "nano", "--decoders", "light", *TOY]
    mae = ["--model", "nano", "--decoder-dim", "64", "--decoder-depth", "2", *TOY]
    loader = ["--model", "nano", "--workers", "0", "1", *TOY, "--rounds", "6"]
    paper = ["--batches", "4", "8", "--steps", "1", "--set", *SMALL]
    return [
        Part("step overhead", "benchmarks.step_overhead", overhead, 1),
        Part("convergence", "benchmarks.convergence", toy, 2),
        Part("MAE step", "benchmarks.mae_step", mae, 1),
        Part("loader", "benchmarks.loader", loader, 1),
        Part("mIoU", "benchmarks.convergence", [*toy, "--finetune"], 2, finetuning),
        Part("ImageNet", "benchmarks.paper_scale", ["imagenet10", *paper], 1, finetuning),
        Part("ADE20K", "benchmarks.paper_scale", ["ade20k10", *paper], 1, finetuning),
    ]


def run_parts(parts: list[Part], seconds: float) -> dict[str, str]:
    """Run the parts one after another within `seconds`; return a sentence on each."""
    end = time.monotonic() + seconds
    outcomes = {}
    for index, part in enumerate(parts):
        left = end - time.monotonic()
        limit = left * part.share / sum(later.share for later in parts[index:])
        print(f"\n== {part.title}, at most {limit:.0f} s ==", flush=True)
        outcomes[part.title] = run_part(part, limit)
        print(outcomes[part.title], flush=True)
    return outcomes


def run_part(part: Part, limit: float) -> str:
    """Run one part for at most `limit` seconds; say how it ended."""
    try:
        if part.needs:
            import_module(part.needs)
    except ImportError as error:
        return f"left out, for it cannot be imported here: {error}"
    process = subprocess.Popen([sys.executable, "-m", part.module, *part.arguments])
    try:
        code = process.wait(limit)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return f"cut off after {limit:.0f} s: give the command again to go on"
    return "finished" if code == 0 else f"failed with exit status {code}"


def print_headlines(folder: Path) -> None:
    """Print the headline of every result of this device."""
    for path in sorted(folder.glob(f"*-{device_slug()}.json")):
        headline = json.loads(path.read_text(encoding="utf-8"))["headline"]
        print(
            f"\n{path.name}", *(f"  {name}: {value}" for name, value in headline.items()), sep="\n"
        )


def main() -> None:
    """Run all parts and print what came of them."""
    parser = create_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=25, help="for all parts together")
    parser.add_argument(
        "--data",
        nargs="+",
        default=[],
        metavar=("NAME", "FOLDER"),
        help="a recipe and its images, for convergence and loader",
    )
    parser.add_argument("--toy", action="store_true", help="a trial of some minutes")
    arguments = parser.parse_args()
    parts = toy_parts() if arguments.toy else full_parts(arguments.data)
    place = tempfile.TemporaryDirectory() if arguments.toy else nullcontext(str(RESULTS))
    with place as folder:
        os.environ["BENCHMARK_RESULTS"] = folder
        outcomes = run_parts(parts, 60 * arguments.minutes)
        print_headlines(Path(folder))
    print("\n" + "\n".join(f"{title}: {outcome}" for title, outcome in outcomes.items()))
    if any(outcome.startswith("failed") for outcome in outcomes.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
