"""The search for a learning rate, on curves whose minimum is known."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbp_mae.comparison.tuning import FACTOR, Trial, Tuning, best_rate, next_rate


def search(
    loss: Callable[[float], float], rates: list[float], bound: int = 50
) -> dict[float, float]:
    losses = {rate: loss(rate) for rate in rates}
    while (rate := next_rate(losses)) and len(losses) < bound:
        losses[rate] = loss(rate)
    return losses


@given(best=st.integers(-12, 12), start=st.integers(-12, 12), width=st.integers(1, 4))
def test_it_brackets_the_best_rate(best: int, start: int, width: int) -> None:
    losses = search(
        lambda rate: abs(math.log2(rate) - best), [2.0 ** (start + n) for n in range(width)]
    )
    assert best_rate(losses) == 2.0**best
    assert {2.0**best / FACTOR, 2.0**best * FACTOR} <= losses.keys()


def test_a_diverged_rate_is_worse_than_any() -> None:
    assert next_rate({1.0: 0.5, 2.0: math.inf}) == 0.5
    assert next_rate({0.5: 0.6, 1.0: 0.5, 2.0: math.inf}) is None


def test_where_all_diverge_it_goes_down() -> None:
    losses = search(lambda rate: math.inf if rate > 0.1 else rate, [1.0, 2.0], bound=7)
    assert min(losses) < 0.1


def test_a_rate_no_better_than_its_neighbour_is_no_bracket() -> None:
    assert next_rate({1.0: 0.5, 2.0: 0.5, 0.5: 0.6}) == 4.0


@pytest.mark.parametrize(
    ("best", "other", "level"),
    [
        ([0.3, 0.3], [0.4, 0.4], None),
        ([0.3, 0.3], [0.4, 0.29], 2.0),
        ([0.3], [0.31], None),
        ([0.3, 0.3], [0.2, None], None),
    ],
)
def test_rates_are_level_where_the_seeds_disagree(
    best: list[float], other: list[float | None], level: float | None
) -> None:
    trials = [(1.0, best), (2.0, other), (4.0, [1.0] * len(best))]
    tried = [Trial(learning_rate=rate, losses=losses) for rate, losses in trials]
    assert Tuning(trials=tried, best=1.0, bracketed=True).level == level


@pytest.mark.parametrize("losses", [{1.0: 0.3, 2.0: 0.2}, {1.0: 0.2, 2.0: 0.3}])
def test_the_best_at_an_edge_is_passed(losses: dict[float, float]) -> None:
    assert next_rate(losses) == (4.0 if losses[1.0] > losses[2.0] else 0.5)
