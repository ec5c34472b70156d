"""The state of the code that made a model."""

import subprocess

CODE = ("dbp_mae", "pipelines", "dvc.yaml")
"""Where a change makes a revision another one; a run itself rewrites params.yaml and dvc.lock."""


def git_revision() -> str:
    """Return the commit at work, with `-dirty` where its code differs; `unknown` without git."""
    try:
        commit = _git("rev-parse", "HEAD")
        changes = _git("status", "--porcelain", "--", *CODE)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}-dirty" if changes else commit


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
