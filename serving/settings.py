"""What the environment says about the service."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from dbp_mae.errors import UserError


@dataclass(frozen=True)
class Settings:
    """The environment's variables, read and checked."""

    model: Path
    """DBP_MAE_MODEL: the model file."""
    max_body: int
    """DBP_MAE_MAX_BODY_MB, in bytes: larger requests are refused."""
    log: Path | None
    """DBP_MAE_INSPECTION_LOG: one JSON line an inspection is appended here; by default nowhere."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the variables.

        Raises:
            UserError: a value does not fit, or the log cannot be written.
        """
        megabytes = environment.get("DBP_MAE_MAX_BODY_MB", "64")
        if not (megabytes.isdecimal() and int(megabytes) > 0):
            raise UserError(
                f"DBP_MAE_MAX_BODY_MB is {megabytes!r}: give a whole number of megabytes above 0."
            )
        log = environment.get("DBP_MAE_INSPECTION_LOG")
        return cls(
            model=Path(environment.get("DBP_MAE_MODEL", "models/segmenter.onnx")),
            max_body=int(megabytes) * 1024 * 1024,
            log=_writable(Path(log)) if log else None,
        )


def _writable(log: Path) -> Path:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.open("a").close()
    except OSError as error:
        raise UserError(
            f"DBP_MAE_INSPECTION_LOG names {log}, which cannot be written ({error.strerror})."
        ) from None
    return log
