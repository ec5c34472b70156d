"""The real service as a user starts it: `bentoml serve` in the repository's root."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "bentoml", "serve"]


@contextmanager
def served(model: Path, **variables: str) -> Iterator[httpx.Client]:
    """Serve a model file on a free port; yield a client once the service is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as home, (Path(home) / "output").open("w") as output:
        environment = {"BENTOML_HOME": home, "BENTOML_DO_NOT_TRACK": "True"}
        server = subprocess.Popen(
            [*COMMAND, "--host", "127.0.0.1", "--port", str(port)],
            cwd=ROOT,
            env={**os.environ, **environment, "DBP_MAE_MODEL": str(model), **variables},
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
