"""The revision that the model's card names."""

import subprocess
from pathlib import Path

import pytest

from dbp_mae.revision import git_revision


def test_the_revision_tells_changed_code_from_a_runs_own_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        command = ["git", *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_revision() == "unknown"

    code, params = tmp_path / "dbp_mae/code.py", tmp_path / "params.yaml"
    code.parent.mkdir()
    code.touch()
    params.touch()
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "all")
    commit = git("rev-parse", "HEAD")
    params.write_text("steps: 1")
    assert git_revision() == commit
    code.write_text("steps = 1")
    assert git_revision() == f"{commit}-dirty"

    monkeypatch.setenv("PATH", "")
    assert git_revision() == "unknown"
