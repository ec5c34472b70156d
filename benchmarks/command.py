"""What every benchmark does around its measurement."""

import argparse
from collections.abc import Callable
from typing import Any

import pandas as pd

from benchmarks.results_file import write_results
from dbp_mae.environment import environment
from pipelines.ending import plain_ending


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """The description as it is written, and every default that there is."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def create_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help begins with the benchmark's docstring."""
    return argparse.ArgumentParser(description=description, formatter_class=_Help)


def count(text: str) -> int:
    """Read a whole number of an argument, from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return int(text)


def run(main: Callable[[], None]) -> None:
    """Run a benchmark from the command line."""
    with plain_ending():
        main()


def report(name: str, headline: dict[str, float], rows: list[dict[str, Any]]) -> None:
    """Print hardware, versions and the table, and write the file of results."""
    print_hardware()
    print(pd.DataFrame(rows).round(4).to_string(index=False))
    print(write_results(name, headline, rows))


def print_hardware() -> None:
    """Print in one line what the figures below it hold for."""
    print(" ".join(f"{key} {value}" for key, value in environment().items()))
