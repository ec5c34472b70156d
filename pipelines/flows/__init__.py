"""Prefect flows over DVC: they add schedule, lock, progress, artifacts and the promotion gate."""

import os
from pathlib import Path

# Read by Prefect when it is imported; who has set one of them keeps it.
DEFAULTS = {
    # In the project's folder, so that two projects on one machine do not mix their runs.
    "PREFECT_HOME": str(Path.cwd() / ".prefect"),
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    # In memory, the default, a restart of the server forgets who holds a deployment's one slot:
    # the slot is never freed, and every later run is cancelled.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
        "prefect.server.concurrency.lease_storage.filesystem"
    ),
}
for name, value in DEFAULTS.items():
    os.environ.setdefault(name, value)
