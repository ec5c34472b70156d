"""A command on a disk that fills up."""

import subprocess
import sys
from pathlib import Path


def error_on_a_full_disk(imports: str, act: str, path: Path) -> str:
    """Return what a process prints as its error when `act`, given `path`, may write 50 kB a file."""
    code = (
        f"import resource, signal, sys; from pathlib import Path; {imports}\n"
        "from pipelines.ending import plain_ending\n"
        "path = Path(sys.argv[1])\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        f"with plain_ending(): {act}"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    return done.stderr
