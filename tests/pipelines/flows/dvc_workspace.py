"""A git repository with DVC, whose stages a test writes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

REPORTS: dict[str, Any] = {
    "metrics.json": {
        "miou": 0.61,
        "scratch_miou": 0.55,
        "defects": {"labelled": 40, "found_share": 0.9, "false_per_image": None},
        "images": {"defective": 8, "escape_share": 0.125, "good": 0, "overkill_share": None},
    },
    "emissions.json": {
        "total": {"kwh": 0.0123, "co2_kg": 0.0047, "seconds": 312.0},
        "stages": {"pretrain": {"kwh": 0.01, "co2_kg": 0.004, "seconds": 250.0}},
    },
}


def write_reports(folder: Path) -> None:
    """Write the reports of an earlier run."""
    folder.mkdir(parents=True)
    for name, figures in REPORTS.items():
        (folder / name).write_text(json.dumps(figures))


class Workspace:
    """The repository, with one commit, and the reports of a run that git does not track yet."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / ".gitignore").write_text("ran.txt\n")
        self.run("git", "init", "--quiet")
        self.dvc("init", "--quiet")
        self.run("git", "add", ".")
        self.run("git", "commit", "--quiet", "--message=first")
        write_reports(root / "reports")

    def run(self, *command: str) -> str:
        return subprocess.run(
            command, cwd=self.root, check=True, stdout=subprocess.PIPE, text=True
        ).stdout

    def dvc(self, *arguments: str) -> str:
        return self.run(sys.executable, "-m", "dvc", *arguments)

    def experiments(self) -> list[str]:
        return self.dvc("exp", "list", "--name-only").split()

    def write_stages(self, stages: dict[str, dict[str, Any]]) -> None:
        """Write dvc.yaml; each command first notes its stage's name."""
        noted = {
            name: stage | {"cmd": f"echo {name} >> ran.txt && {stage['cmd']}"}
            for name, stage in stages.items()
        }
        (self.root / "dvc.yaml").write_text(yaml.safe_dump({"stages": noted}, sort_keys=False))

    def ran(self) -> list[str]:
        """Return the stages that ran since the last call, in their order."""
        notes = self.root / "ran.txt"
        names = notes.read_text().split() if notes.exists() else []
        notes.unlink(missing_ok=True)
        return names
