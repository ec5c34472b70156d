"""A real Prefect server for the session, and a real DVC repository for each test."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from dvc_workspace import Workspace
from prefect.testing.utilities import prefect_test_harness

# A process that is forked after a flow has run inherits the exit calls of Prefect's services, which
# fail there: a later test's data loader would end with exit code 1.
os.register_at_fork(after_in_child=threading._threading_atexits.clear)  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def workspace(prefect_server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.chdir(tmp_path)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "tester")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "tester@example.com")
    return Workspace(tmp_path)
