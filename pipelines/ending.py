"""How a command of the project ends when a user has to know something: with one sentence."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from dbp_mae.errors import UserError
from dbp_mae.training.interruption import Interrupted

REFUSED_BY_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES}


@contextmanager
def plain_ending() -> Iterator[None]:
    """Print a user's error, or what an interruption leaves, without a trace; exit with status 1."""
    try:
        yield
    except Interrupted as stop:
        sys.exit(f"stopped: {stop}")
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.errno not in REFUSED_BY_DISK:
            raise
        file = f"{error.filename}: " if error.filename else ""
        sys.exit(
            f"error: {file}{error.strerror}: make room or allow it to be written, and give the same "
            "command again."
        )
