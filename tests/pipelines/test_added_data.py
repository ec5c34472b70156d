"""What a user gives DVC under data/raw and models is left alone by git, and found by DVC."""

import shutil
import subprocess
from pathlib import Path

import pytest
from dvc.repo import Repo

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["data/raw/plate", "models/archive"])
def test_dvc_finds_what_is_added(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / ".gitignore", tmp_path)
    subprocess.run(["git", "init", "--quiet"], check=True)
    folder = tmp_path / name
    folder.mkdir(parents=True)
    (folder / "1.png").write_bytes(b"an image")
    Repo.init(str(tmp_path)).close()
    for ignored, status in ((folder / "1.png", 0), (folder.with_suffix(".dvc"), 1)):
        asked = subprocess.run(["git", "check-ignore", "--quiet", str(ignored)], check=False)
        assert asked.returncode == status, ignored
    with Repo(str(tmp_path)) as repo:
        repo.add(name)
    with Repo(str(tmp_path)) as repo:
        assert [Path(out.fs_path) for out in repo.index.outs] == [folder]
