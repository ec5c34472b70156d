"""The real service as a user starts it: `bentoml serve` in the repository's root."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[1]
CONTAINERS = ("BENTOML_CONTAINERIZED", "BENTOCLOUD_DEPLOYMENT_URL")
"""By which BentoML tells that it is in a container, where it replaces no worker."""
COMMAND = [sys.executable, "-m", "bentoml", "serve"]


def environment(folder: Path, model: Path, **variables: str) -> dict[str, str]:
    """Return the environment of a service that serves `model` and keeps its files in `folder`."""
    own = {"BENTOML_HOME": str(folder), "BENTOML_DO_NOT_TRACK": "True", "DBP_MAE_MODEL": str(model)}
    outer = {name: value for name, value in os.environ.items() if name not in CONTAINERS}
    return {**outer, **own, **variables}


@contextmanager
def served(folder: Path, model: Path, **variables: str) -> Iterator[httpx.Client]:
    """Serve a model file on a free port; yield a client once the service is ready.

    What the service prints goes to folder/output.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (folder / "output").open("w") as output:
        server = subprocess.Popen(
            [*COMMAND, "--host", "127.0.0.1", "--port", str(port)],
            cwd=ROOT,
            env=environment(folder, model, **variables),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            patient = httpx.HTTPTransport(retries=6)  # the wait doubles each time
            url = f"http://127.0.0.1:{port}"
            with httpx.Client(base_url=url, transport=patient, timeout=60) as client:
                assert client.get("/readyz").status_code == 200
                yield client
        finally:
            server.terminate()
            server.wait(30)
