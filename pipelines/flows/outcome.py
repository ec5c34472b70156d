"""How a flow ends: in a state whose message is one sentence, without a stack trace."""

import argparse
import functools
import logging
import signal
import sys
from collections.abc import Callable
from typing import ParamSpec

from prefect import Flow
from prefect.exceptions import FailedRun
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import get_current_settings
from prefect.states import Completed, Failed, State

from dbp_mae.errors import UserError

P = ParamSpec("P")


def one_sentence(body: Callable[P, str | State]) -> Callable[P, State]:
    """End a flow with the sentence that its body returns, or Failed with that of a UserError."""

    @functools.wraps(body)
    def settled(*args: P.args, **kwargs: P.kwargs) -> State:
        try:
            outcome = body(*args, **kwargs)
        except UserError as error:
            return Failed(message=str(error))
        return Completed(message=outcome) if isinstance(outcome, str) else outcome

    return settled


def run_from_shell(flow: Flow[[], State]) -> None:
    """Run a flow with its defaults, print its sentence, and exit with 1 if it failed."""
    note = "From the shell all parameters keep their defaults; Prefect's page can set others."
    argparse.ArgumentParser(description=flow.description, epilog=note).parse_args()
    settings = get_current_settings()
    try:
        if settings.server.ephemeral.enabled and not settings.api.url:
            _start_server()
        state = flow(return_state=True)
    except KeyboardInterrupt:
        sys.exit("stopped: give the same command again.")
    if not state.is_completed():
        sys.exit(f"error: {state.message}")
    print(state.message)


def _start_server() -> None:
    """Start Prefect's temporary server before the flow does, deaf to Ctrl-C: it is told how the flow ends."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # also in what is started
    try:
        SubprocessASGIServer().start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def _not_a_plain_failure(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], FailedRun))


# In a worker, Prefect calls every Failed flow an unexpected exception and logs its own stack.
for engine_log in ("prefect.flow_runs", "prefect.engine"):
    logging.getLogger(engine_log).addFilter(_not_a_plain_failure)
