"""One option per unit, least loss within a budget: the multiple-choice knapsack, by dynamic programming over cost.

Costs are whole numbers. Divided by their greatest common divisor they are few enough, for models whose widths are
multiples of something, for the result to be exact; otherwise they are rounded up to a grid and what is left over is
spent afterwards.
"""

from collections.abc import Sequence
from math import gcd

import numpy as np
from numpy.typing import NDArray

GRID = 100_000


def solve(
    costs: Sequence[Sequence[int]], losses: Sequence[Sequence[float]], budget: int, *, grid: int = GRID
) -> list[int]:
    """Index of the chosen option of every unit; the same input gives the same choice.

    Args:
        costs: per unit, of its options.
        losses: of the same shape; the sum of the chosen ones is minimised.
        budget: the sum of the chosen costs does not exceed it.
        grid: at most this many different costs are told apart; up to that many the result is optimal.

    Raises:
        ValueError: the cheapest options exceed the budget together.
    """
    capacity = budget - sum(min(unit) for unit in costs)
    if capacity < 0:
        raise ValueError(f"the cheapest options cost {budget - capacity}, more than the budget of {budget}")
    extra = [[cost - min(unit) for cost in unit] for unit in costs]
    capacity = min(capacity, sum(max(unit) for unit in extra))
    step = gcd(*(cost for unit in extra for cost in unit)) or 1
    step *= max(1, -(-(capacity // step) // grid))
    rounded = [np.array([-(-cost // step) for cost in unit]) for unit in extra]
    chosen = _least_loss(rounded, losses, capacity // step)
    return _spend_rest(extra, losses, chosen, capacity)


def _least_loss(costs: Sequence[NDArray[np.int64]], losses: Sequence[Sequence[float]], capacity: int) -> list[int]:
    """The optimum for costs that are steps of the table; of equal losses the cheaper option is taken."""
    best = np.zeros(capacity + 1)
    choices = []
    for unit_costs, unit_losses in zip(costs, losses, strict=True):
        lowest = np.full(capacity + 1, np.inf)
        choice = np.zeros(capacity + 1, dtype=np.int32)
        for option in np.argsort(unit_costs, kind="stable"):
            cost = int(unit_costs[option])
            if cost > capacity:
                break
            candidate = best[: capacity + 1 - cost] + unit_losses[option]
            better = candidate < lowest[cost:]
            lowest[cost:][better] = candidate[better]
            choice[cost:][better] = option
        best = lowest
        choices.append(choice)
    chosen, left = [], capacity
    for unit_costs, choice in zip(reversed(costs), reversed(choices), strict=True):
        option = int(choice[left])
        chosen.append(option)
        left -= int(unit_costs[option])
    return chosen[::-1]


def _spend_rest(
    costs: Sequence[Sequence[int]], losses: Sequence[Sequence[float]], chosen: list[int], capacity: int
) -> list[int]:
    """Change single units for the better as long as one change fits, the largest gain first."""
    chosen = list(chosen)
    left = capacity - sum(unit[option] for unit, option in zip(costs, chosen, strict=True))
    while True:
        gains = [
            (losses[unit][now] - losses[unit][option], unit, option)
            for unit, now in enumerate(chosen)
            for option in range(len(costs[unit]))
            if costs[unit][option] - costs[unit][now] <= left and losses[unit][option] < losses[unit][now]
        ]
        if not gains:
            return chosen
        _, unit, option = max(gains, key=lambda gain: (gain[0], -gain[1], -gain[2]))
        left -= costs[unit][option] - costs[unit][chosen[unit]]
        chosen[unit] = option
