"""Contestants that take turns, so that a noisy machine slows all alike; a measurement cut off goes on.

The times are kept in .benchmarks/, a file for each device, set of versions, state of the code and
settings: a second call takes the rounds that are missing, and none when there is none.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.command import count
from dbp_mae.environment import code_sha256, environment
from dbp_mae.files import write_text
from dbp_mae.training.compilation import make_room_for_compiled

ROOT = Path(".benchmarks")

Contestants = dict[str, Callable[[], object]]


def add_rounds(parser: argparse.ArgumentParser) -> None:
    """Add how many turns there are."""
    parser.add_argument("--rounds", type=count, default=8, help="turns of each contestant")
    parser.add_argument("--warmup", type=int, default=3, help="turns that do not count")


def take_turns(
    name: str,
    settings: dict[str, Any],
    enter: Callable[[], Contestants],
    rounds: int,
    warmup: int,
    calls: int = 1,
) -> pd.DataFrame:
    """Return the seconds of a call in each round, a column a contestant.

    In a round each is called `calls` times at a stretch: as often as it takes to see all that a call
    may do, for the median over the rounds hides what happens in few of them. The first of a round is
    the last of the next. `enter` makes the contestants and is called only when rounds are missing;
    `settings` tells this measurement from others of the same `name`.
    """
    path = kept_file(name, {**settings, "calls": calls})
    times: list[dict[str, float]] = json.loads(path.read_text()) if path.exists() else []
    if len(times) < rounds:
        contestants = enter()
        make_room_for_compiled(len(contestants))
        for index in range(warmup):
            _round(contestants, index, calls)
        while len(times) < rounds:
            times.append(_round(contestants, len(times), calls))
            write_text(path, json.dumps(times))
    return pd.DataFrame(times[:rounds])


def ratios(times: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Return each contestant's time to the baseline's in the round: median, min and max over the rounds."""
    return times.div(times[baseline], axis=0).agg(["median", "min", "max"]).T


def _round(contestants: Contestants, index: int, calls: int) -> dict[str, float]:
    names = list(contestants)
    first = index % len(names)
    taken = {name: _seconds(contestants[name], calls) for name in names[first:] + names[:first]}
    return {name: taken[name] for name in names}


def _seconds(act: Callable[[], object], calls: int) -> float:
    synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        act()
    synchronize()
    return (time.perf_counter() - start) / calls


def synchronize() -> None:
    """Wait until the device has done all its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def kept_file(name: str, settings: dict[str, Any]) -> Path:
    """Return the file of one measurement with this device, these versions, this code and settings."""
    conditions = [environment(), code_sha256(Path(__file__).parent), settings]
    digest = hashlib.sha256(json.dumps(conditions, default=str).encode())
    return ROOT / f"{name}-{digest.hexdigest()[:12]}.json"
