"""The number format that `precision: auto` stands for."""

from typing import Literal

import torch

from dbp_mae.params import Precision


def resolve(precision: Precision) -> Literal["32-true", "bf16-mixed"]:
    """Return bf16-mixed for `auto` where the device computes in it, else 32-true; others as they are."""
    if precision != "auto":
        return precision
    return "bf16-mixed" if _has_fast_bf16() else "32-true"


def _has_fast_bf16() -> bool:
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
