"""A Prefect server on this machine, its worker and prefect.yaml's deployments, until Ctrl-C."""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import NoReturn
from urllib.request import urlopen

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings
from prefect.states import Crashed, StateType

from dbp_mae.errors import UserError

POOL = "factory"
STARTUP_SECONDS = 120


def main() -> None:
    """Start all three, print the address, and end them when interrupted.

    Raises:
        UserError: the address is taken, the server did not start, prefect.yaml is not valid, or the
            server or the worker ended by itself.
    """
    api = get_current_settings().server.api
    address = f"http://{api.host}:{api.port}"
    if _answers(api.host, api.port):
        raise UserError(
            f"Something already answers at {address}: stop it, or set PREFECT_SERVER_API_PORT."
        )
    os.environ["PREFECT_API_URL"] = f"{address}/api"  # for the commands; here it is read already
    with _running("server", "start") as server:
        _wait_until_healthy(server, address)
        with temporary_settings({PREFECT_API_URL: f"{address}/api"}):
            end_orphans()
        _prefect("work-pool", "create", POOL, "--type=process", "--overwrite")
        _prefect("deploy", "--all")
        with _running("worker", "start", f"--pool={POOL}") as worker:
            print(f"\nPrefect: {address}  (Ctrl-C ends the server, the worker and the schedules)\n")
            wait_for_an_end({"server": server, "worker": worker})


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


@contextmanager
def _running(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    # In a session of its own: Ctrl-C reaches only us, and the worker ends before the server.
    process = subprocess.Popen(_command(*arguments), start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _wait_until_healthy(process: subprocess.Popen[bytes], address: str) -> None:
    for _ in range(STARTUP_SECONDS):
        if process.poll() is not None:
            break
        try:
            with urlopen(f"{address}/api/health", timeout=5):
                return
        except OSError:
            time.sleep(1)
    raise UserError(f"Prefect's server did not start at {address}: see above.")


def wait_for_an_end(processes: Mapping[str, subprocess.Popen[bytes]]) -> NoReturn:
    """Wait until one of these processes, by name, ends by itself: without it nothing is scheduled.

    Raises:
        UserError: which one ended, and how.
    """
    while True:
        for name, process in processes.items():
            with suppress(subprocess.TimeoutExpired):
                status = process.wait(timeout=1)
                raise UserError(
                    f"Prefect's {name} ended by itself (status {status}): see above, then give `make ui` "
                    "again."
                )


def end_orphans() -> None:
    """Mark what a power cut or Ctrl-C left Running as Crashed: no worker is at work yet."""
    unfinished = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(is_null_=False),
        state=FlowRunFilterState(
            type=FlowRunFilterStateType(
                any_=[StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
            )
        ),
    )
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=unfinished):
            message = "The worker was stopped while this ran."
            client.set_flow_run_state(run.id, Crashed(message=message), force=True)


def _prefect(*arguments: str) -> None:
    # What it says is kept: it would advise to start the worker that we start.
    done = subprocess.run(_command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise UserError(f"prefect {' '.join(arguments)} failed:\n{done.stdout.decode().strip()}")


def _command(*arguments: str) -> list[str]:
    # In a terminal a server would ask about profiles before it starts, of which we use none.
    return [sys.executable, "-m", "prefect", "--no-prompt", *arguments]


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    # A script's `&` has SIGINT ignored, here and in what is started here; Prefect ends its runs by it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        main()
    except KeyboardInterrupt:
        print("Prefect has ended.")
    except UserError as error:
        sys.exit(f"error: {error}")
