"""DVC's command line, in a subprocess whose output goes line by line into Prefect's log."""

import os
import re
import subprocess
import sys
from pathlib import Path

from prefect.logging import get_run_logger

from dbp_mae.errors import UserError


class DvcFailed(UserError):
    """DVC did not do what it was asked; the message is what the stage said, or DVC."""


def run_dvc(*arguments: str) -> None:
    """Run `dvc` with these arguments, waiting while another command of DVC holds its lock.

    Raises:
        DvcFailed: DVC ended with an error.
    """
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments]
    logger = get_run_logger()
    lines = []
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | _environment(),
    ) as process:
        assert process.stdout is not None
        for line in filter(None, map(str.rstrip, process.stdout)):
            logger.info(line)
            lines.append(line)
    if process.returncode:
        raise DvcFailed(_reason(lines))


def _environment() -> dict[str, str]:
    binaries = Path(sys.executable).parent  # where the `python` of the stages' commands is
    return {
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "PYTHONUNBUFFERED": "1",
        "TQDM_MININTERVAL": "15",  # seconds: each refresh of a bar becomes a line of the log
    }


def _reason(lines: list[str]) -> str:
    """Return what a stage said at its end, all its lines, else DVC's own error in one line."""
    text = "\n".join(lines)
    said = re.split(r"\n(?:error|stopped): ", text, maxsplit=1)[1:]
    own, _, _ = "".join(said).partition("\nERROR: ")
    dvcs = text.partition("ERROR: ")[2]
    return own or " ".join(dvcs.split()) or text
