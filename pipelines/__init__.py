"""Orchestration: DVC stages and Prefect flows over the library."""

import os
import sys
from types import TracebackType

# A factory has no internet, and nothing here phones home even where there is one.
os.environ.update(
    DO_NOT_TRACK="1",
    GX_ANALYTICS_ENABLED="false",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    NO_ALBUMENTATIONS_UPDATE="1",
    HF_HUB_OFFLINE="1",
    BENTOML_DO_NOT_TRACK="True",
)
# A thread that waits for another soon gives its core up. By default it turns on the spot for so long that
# a training beside other work took many times as long (benchmarks/notes.md).
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

_show = sys.excepthook


def _end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say what a Ctrl-C leaves, without a trace: here, for it may come while a command still imports."""
    if issubclass(kind, KeyboardInterrupt):
        print("stopped: give the same command again.", file=sys.stderr)
    else:
        _show(kind, error, trace)


sys.excepthook = _end
