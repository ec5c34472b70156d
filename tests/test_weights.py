"""Weights in files."""

import subprocess
import sys
from pathlib import Path


def test_a_full_disk_ends_in_one_sentence_and_leaves_the_last_file(tmp_path: Path) -> None:
    file = tmp_path / "encoder.safetensors"
    file.write_bytes(b"the last one")
    code = (
        "import resource, signal, sys; from pathlib import Path; from torch import nn\n"
        "from dbp_mae.weights import write_weights\n"
        "from pipelines.ending import plain_ending\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "with plain_ending(): write_weights(Path(sys.argv[1]), nn.Linear(300, 300), {'spec': 1})"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True)
    assert done.stderr.startswith("error: File too large: make room")
    assert file.read_bytes() == b"the last one"
    assert list(tmp_path.iterdir()) == [file]
