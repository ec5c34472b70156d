"""What the environment says about the service."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from dbp_mae.errors import UserError
from dbp_mae.inspection.images import MAX_PIXELS


@dataclass(frozen=True)
class Settings:
    """The environment's variables, read and checked."""

    model: Path
    """DBP_MAE_MODEL: the model file."""
    max_body: int
    """DBP_MAE_MAX_BODY_MB, in bytes: larger requests are refused."""
    max_pixels: int
    """DBP_MAE_MAX_MEGAPIXELS, in pixels: larger images are refused."""
    log: Path | None
    """DBP_MAE_INSPECTION_LOG: one JSON line an inspection is appended here; by default nowhere."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the variables.

        Raises:
            UserError: a value does not fit, or the log cannot be written.
        """
        log = environment.get("DBP_MAE_INSPECTION_LOG")
        return cls(
            model=Path(environment.get("DBP_MAE_MODEL") or "models/segmenter.onnx"),
            max_body=_whole_number(environment, "DBP_MAE_MAX_BODY_MB", 64) * 1024 * 1024,
            max_pixels=min(
                MAX_PIXELS, _whole_number(environment, "DBP_MAE_MAX_MEGAPIXELS", 100) * 1_000_000
            ),
            log=_writable(Path(log)) if log else None,
        )


def _whole_number(environment: Mapping[str, str], name: str, default: int) -> int:
    value = environment.get(name, str(default))
    if not (value.isdecimal() and int(value) > 0):
        raise UserError(f"{name} is {value!r}: give a whole number above 0.")
    return int(value)


def _writable(log: Path) -> Path:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.open("a").close()
    except OSError as error:
        raise UserError(
            f"DBP_MAE_INSPECTION_LOG names {log}, which cannot be written ({error.strerror}): "
            "name another file, or let the service's user write this one."
        ) from None
    return log
