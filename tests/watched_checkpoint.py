"""A checkpoint that tells whenever it is written, for what has to happen then."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dbp_mae.training.checkpoint import Checkpoint


class WatchedCheckpoint(Checkpoint):
    """Calls `watch` after a state was written."""

    def __init__(self, folder: Path, watch: Callable[[], None]) -> None:
        super().__init__(folder)
        self.watch = watch

    def save(self, state: dict[str, Any]) -> None:
        super().save(state)
        self.watch()
