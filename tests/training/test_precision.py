"""What `precision: auto` stands for."""

import pytest
import torch

from dbp_mae.training.precision import is_fast_in_bf16, resolve


@pytest.mark.parametrize(
    ("processor", "fast"),
    [
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": False}, False),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, True),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True, "amx_bf16": False}, True),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": False}, False),
        ({}, False),
    ],
)
def test_bf16_is_for_processors_that_gain_by_it(processor: dict[str, object], fast: bool) -> None:
    assert is_fast_in_bf16(processor) is fast


def test_a_named_format_is_kept() -> None:
    assert resolve("32-true") == "32-true"
    assert resolve("bf16-mixed") == "bf16-mixed"


@pytest.mark.parametrize(("fast", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto_is_what_the_processor_is_faster_in(
    fast: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": fast})
    assert resolve("auto") == expected
