"""What `precision: auto` stands for."""

import pytest

from dbp_mae.precision import is_fast_in_bf16, resolve


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
    assert resolve("auto") in ("32-true", "bf16-mixed")
