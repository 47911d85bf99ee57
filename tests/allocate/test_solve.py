"""The knapsack against brute force."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerazor.allocate.solve import solve

Options = list[list[tuple[int, float]]]


@st.composite
def problems(draw: st.DrawFn) -> tuple[Options, int]:
    """Up to five units of up to four options, and a budget between the cheapest and the dearest choice."""
    step = draw(st.sampled_from([1, 7, 158]))
    option = st.tuples(st.integers(0, 30).map(lambda cost: cost * step), st.integers(0, 50).map(lambda loss: loss / 8))
    units = draw(st.lists(st.lists(option, min_size=1, max_size=4), min_size=1, max_size=5))
    lowest, highest = (sum(extreme(cost for cost, _ in unit) for unit in units) for extreme in (min, max))
    return units, draw(st.integers(lowest, highest))


def split(units: Options) -> tuple[list[list[int]], list[list[float]]]:
    return [[cost for cost, _ in unit] for unit in units], [[loss for _, loss in unit] for unit in units]


def totals(units: Options, chosen: tuple[int, ...] | list[int]) -> tuple[int, float]:
    picked = [unit[index] for unit, index in zip(units, chosen, strict=True)]
    return sum(cost for cost, _ in picked), sum(loss for _, loss in picked)


@settings(max_examples=60)
@given(problems())
def test_nothing_within_the_budget_is_better(problem: tuple[Options, int]) -> None:
    units, budget = problem
    cost, loss = totals(units, solve(*split(units), budget))
    every = [totals(units, choice) for choice in product(*(range(len(unit)) for unit in units))]
    assert cost <= budget
    assert loss == min(other for spent, other in every if spent <= budget)


@settings(max_examples=40)
@given(problems(), st.integers(1, 8))
def test_a_coarse_grid_keeps_the_budget_and_leaves_no_single_change_that_pays(
    problem: tuple[Options, int], grid: int
) -> None:
    units, budget = problem
    chosen = solve(*split(units), budget, grid=grid)
    cost, loss = totals(units, chosen)
    assert cost <= budget
    for unit, options in enumerate(units):
        for option in range(len(options)):
            spent, other = totals(units, [*chosen[:unit], option, *chosen[unit + 1 :]])
            assert spent > budget or other >= loss


@settings(max_examples=10)
@given(problems())
def test_the_same_input_gives_the_same_choice(problem: tuple[Options, int]) -> None:
    units, budget = problem
    assert solve(*split(units), budget) == solve(*split(units), budget)


def test_of_equal_losses_the_cheaper_is_taken() -> None:
    assert solve([[4, 2, 3]], [[1.0, 1.0, 1.0]], 10) == [1]


def test_a_budget_below_the_cheapest_is_refused() -> None:
    with pytest.raises(ValueError, match="cost 7, more than the budget of 6"):
        solve([[3, 9], [4, 5]], [[1.0, 0.0], [1.0, 0.0]], 6)
