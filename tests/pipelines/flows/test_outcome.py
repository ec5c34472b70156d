"""How runs end: with a sentence, and never for ever Running."""

import logging
import signal
import socket

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.exceptions import FailedRun
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_API_PORT, temporary_settings
from prefect.states import Completed, Failed, Running, State

from dbp_mae.errors import UserError
from pipelines.flows.outcome import one_sentence, run_from_shell
from pipelines.flows.ui import end_orphans, main


@flow
@one_sentence
def ends(well: bool = True) -> str | State:
    if not well:
        raise UserError("params.yaml is missing.")
    return "All is well."


def test_a_flow_ends_with_one_sentence(
    prefect_server: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["ends"])  # pytest's own would be read else
    state = ends(well=False, return_state=True)
    assert (state.name, state.message) == ("Failed", "params.yaml is missing.")
    run_from_shell(ends)
    assert capsys.readouterr().out == "All is well.\n"


def test_a_state_that_the_body_returns_is_kept() -> None:
    warning = Failed(name="Drifted", message="mean has moved")
    assert one_sentence(lambda: warning)() is warning


def test_ctrl_c_while_the_server_starts_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["flow"])
    monkeypatch.setattr(
        SubprocessASGIServer, "start", lambda server: signal.raise_signal(signal.SIGINT)
    )
    with (
        temporary_settings(restore_defaults={PREFECT_API_URL}),
        pytest.raises(SystemExit, match="stopped: give the same command again"),
    ):
        run_from_shell(ends)


def test_a_failed_flow_leaves_no_stack_trace(caplog: pytest.LogCaptureFixture) -> None:
    for error in (FailedRun("params.yaml is missing."), ValueError("a mistake of ours")):
        try:
            raise error
        except (FailedRun, ValueError):
            logging.getLogger("prefect.engine").exception("unexpected")
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == [
        "a mistake of ours"
    ]


def test_what_a_stopped_worker_left_running_is_ended(prefect_server: None) -> None:
    with get_client(sync_client=True) as client:
        deployment = client.create_deployment(client.create_flow(ends), name="nightly")
        left, finished = (client.create_flow_run_from_deployment(deployment).id for _ in range(2))
        client.set_flow_run_state(left, Running(), force=True)
        client.set_flow_run_state(finished, Completed(), force=True)
        end_orphans()
        assert client.read_flow_run(left).state_name == "Crashed"
        assert client.read_flow_run(finished).state_name == "Completed"


def test_a_server_of_someone_else_is_left_alone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with (
            temporary_settings({PREFECT_SERVER_API_PORT: port}),
            pytest.raises(UserError, match=f"already answers at http://127.0.0.1:{port}: stop it"),
        ):
            main()
