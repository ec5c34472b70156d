"""Weights in safetensors files, with what rebuilds their network in the header."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from dbp_mae.errors import UserError
from dbp_mae.files import atomic_path


def write_weights(path: Path, network: nn.Module, header: dict[str, Any]) -> None:
    """Write a network's state under its own keys; each entry of the header is kept as JSON."""
    weights = {
        key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()
    }
    metadata = {key: json.dumps(value) for key, value in header.items()}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(weights, metadata))  # save_file hides a full disk's OSError


def read_weights(path: Path, stage: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the weights and the header that `write_weights` wrote.

    Args:
        stage: the stage that makes the file, for the error.

    Raises:
        UserError: the file is missing, or is not one of that stage.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            header = {key: json.loads(metadata[key]) for key in metadata if key != "format"}
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run the {stage} stage first.") from None
    except (SafetensorError, ValueError):
        header = {}
    if "spec" not in header:
        raise UserError(
            f"{path} is not a file of this project: expected the safetensors file that the {stage} "
            "stage writes. Run that stage again."
        )
    return weights, header
