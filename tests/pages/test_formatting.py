"""Figures as they stand in the report."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dbp_mae.pages.formatting import (
    UNKNOWN,
    count,
    decimal,
    duration,
    energy,
    mass,
    percent,
    signed,
    size,
)


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (1, "100 %"), (0.5, "50 %"), (0.025, "2.5 %"), (0.996, "99.6 %")],
)
def test_percent(share: float, text: str) -> None:
    assert percent(share) == text.replace(" ", "\u00a0")


@given(st.floats(0, 1))
@example(0.0005)
@example(0.9995)
def test_only_nothing_and_all_are_0_and_100_percent(share: float) -> None:
    number = percent(share).replace("\u00a0", " ").removesuffix(" %")
    assert (number in ("0", "0.0")) == (share == 0)
    assert (number in ("100", "100.0")) == (share == 1)


@pytest.mark.parametrize("write", [percent, decimal, signed])
@pytest.mark.parametrize("unknown", [None, math.nan])
def test_what_is_unknown_is_a_dash(write: object, unknown: float | None) -> None:
    assert callable(write)
    assert write(unknown) == UNKNOWN


def test_signs() -> None:
    assert [signed(0.0512), signed(-0.0512), signed(0.0)] == ["+0.051", "−0.051", "+0.000"]


def test_thousands() -> None:
    assert count(1234567) == "1\u202f234\u202f567"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (energy(12.345), "12.3 kWh"),
        (energy(0.0123), "12.3 Wh"),
        (energy(1e-5), "10.0 mWh"),
        (energy(0), "0.00 mWh"),
        (mass(0.5), "500 g"),
        (mass(2.0), "2.00 kg"),
        (duration(0.035), "35.0 ms"),
        (duration(59), "59.0 s"),
        (duration(90), "1.50 min"),
        (duration(7200), "2.00 h"),
        (size(5_500_000), "5.50 MB"),
        (size(900), "0.90 kB"),
    ],
)
def test_units_fit(text: str, expected: str) -> None:
    assert text == expected.replace(" ", "\u00a0")
