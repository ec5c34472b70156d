"""The number format that `precision: auto` stands for."""

from collections.abc import Mapping
from typing import Any, Literal

import torch

from dbp_mae.params import Precision


def resolve(precision: Precision) -> Literal["32-true", "bf16-mixed"]:
    """Return bf16-mixed for `auto` where the device is faster in it, else 32-true; others as they are."""
    if precision != "auto":
        return precision
    return "bf16-mixed" if _device_gains() else "32-true"


def _device_gains() -> bool:
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return is_fast_in_bf16(torch.cpu.get_capabilities())


def is_fast_in_bf16(processor: Mapping[str, Any]) -> bool:
    """Tell whether a processor, as torch.cpu.get_capabilities describes it, gains by bf16.

    Measured: Intel's AMX gains; AMD's AVX512-BF16 in fine-tuning; Intel's AVX512-BF16 alone does not.
    """
    unit = "amx_bf16" if "Intel" in processor.get("cpu_name", "") else "avx512_bf16"
    return bool(processor.get(unit, False))
