"""A first signal is held back until the work at hand is done; a second one is not."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from dbp_mae.training.interruption import TOLD, held_back


@pytest.fixture(autouse=True)
def ctrl_c_is_heeded() -> Iterator[None]:
    """A shell that starts the tests in the background has them ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_first_signal_is_noted_and_the_second_acts() -> None:
    before = signal.getsignal(signal.SIGINT)
    with held_back(signal.SIGINT, signal.SIGTERM) as asked:
        assert not asked()
        signal.raise_signal(signal.SIGINT)
        assert asked()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_what_is_not_held_back_acts_at_once() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with held_back(signal.SIGTERM) as asked:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert not asked()
    assert signal.getsignal(signal.SIGTERM) is before


def test_another_signal_is_no_second_one() -> None:
    with held_back(signal.SIGINT, signal.SIGTERM) as asked:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert asked()


def test_processes_beside_this_one_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    beside = [SimpleNamespace(pid=2**30, daemon=False), SimpleNamespace(pid=2**30 + 1, daemon=True)]
    told = []
    monkeypatch.setattr(multiprocessing, "active_children", lambda: beside)
    monkeypatch.setattr(os, "kill", lambda *arguments: told.append(arguments))
    with held_back(signal.SIGINT, signal.SIGTERM):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
    assert told == [(2**30, TOLD)]


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with held_back(signal.SIGINT) as asked:
            signal.raise_signal(signal.SIGINT)
            assert not asked()
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_may_use_it() -> None:
    answers: list[bool] = []

    def work() -> None:
        with held_back(signal.SIGINT) as asked:
            answers.append(asked())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert answers == [False]


@pytest.mark.parametrize(
    ("raised", "printed"),
    [
        ("Interrupted('after step 3.')", "stopped: after step 3.\n"),
        ("UserError('No image.')", "error: No image.\n"),
    ],
)
def test_a_stage_ends_with_one_sentence(raised: str, printed: str) -> None:
    program = f"""
from dbp_mae.errors import UserError
from dbp_mae.training.interruption import Interrupted
from pipelines.stage import run

def stage(params):
    raise {raised}

run(stage)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (1, printed)


def test_a_command_interrupted_while_it_imports_shows_no_trace() -> None:
    ended = ending("KeyboardInterrupt")
    assert ended.returncode == -signal.SIGINT
    assert ended.stderr == "stopped: give the same command again.\n"


def test_a_mistake_of_ours_still_shows_where_it_was() -> None:
    ended = ending("ZeroDivisionError")
    assert ended.returncode == 1
    assert ended.stderr.startswith("Traceback")


def ending(error: str) -> subprocess.CompletedProcess[str]:
    program = f"import pipelines\nraise {error}"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
