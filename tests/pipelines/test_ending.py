"""A command ends with a sentence where its user can do something about it, and with a trace where not."""

import errno
from pathlib import Path

import pytest

from dbp_mae.errors import UserError
from pipelines.ending import plain_ending


def test_a_users_error_is_told() -> None:
    with pytest.raises(SystemExit, match=r"^error: too hot$"), plain_ending():
        raise UserError("too hot")


def test_a_full_disk_is_told() -> None:
    with (
        pytest.raises(SystemExit, match=r"^error: No space left on device: make room"),
        plain_ending(),
    ):
        Path("/dev/full").write_text("x")


def test_the_file_that_may_not_be_written_is_named() -> None:
    with pytest.raises(SystemExit, match=r"^error: a/b: Permission denied: "), plain_ending():
        raise PermissionError(errno.EACCES, "Permission denied", "a/b")


def test_a_fault_of_ours_keeps_its_trace() -> None:
    with pytest.raises(FileNotFoundError), plain_ending():
        Path("/no/such/file").read_text()
