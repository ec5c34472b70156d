"""How a flow ends: in a state whose message is one sentence, without a stack trace."""

import argparse
import functools
import logging
import sys
from collections.abc import Callable
from typing import ParamSpec

from prefect import Flow
from prefect.exceptions import FailedRun
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
    state = flow(return_state=True)
    if not state.is_completed():
        sys.exit(f"error: {state.message}")
    print(state.message)


def _not_a_plain_failure(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], FailedRun))


# In a worker, Prefect calls every Failed flow an unexpected exception and logs its own stack.
for engine_log in ("prefect.flow_runs", "prefect.engine"):
    logging.getLogger(engine_log).addFilter(_not_a_plain_failure)
