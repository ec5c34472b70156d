"""The server and the worker are watched, for without either no schedule runs."""

import subprocess
import sys

import pytest

from dbp_mae.errors import UserError
from pipelines.flows.ui import wait_for_an_end


@pytest.mark.parametrize("ending", ["server", "worker"])
def test_whichever_ends_by_itself_is_named(ending: str) -> None:
    programs = dict.fromkeys(("server", "worker"), "input()") | {ending: "raise SystemExit(3)"}
    processes = {
        name: subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)
        for name, program in programs.items()
    }
    try:
        with pytest.raises(UserError, match=rf"Prefect's {ending} ended by itself \(status 3\)"):
            wait_for_an_end(processes)
    finally:
        for process in processes.values():
            process.communicate(b"\n")
