"""The straight-through estimator: exact values forward, the incoming gradient unchanged backward."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        return _without_autocast(x, function)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, None]:
        return gradients[0], None


def straight_through(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """`function(x)` with the gradient of the identity; `function` must return a new tensor of the shape of `x`."""
    if not (torch.is_grad_enabled() and x.requires_grad):
        return _without_autocast(x, function)  # a graph that nobody asked for costs as much as the rounding
    result: Tensor = _StraightThrough.apply(x, function)  # type: ignore[no-untyped-call]
    return result


def _without_autocast(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    if not torch.is_autocast_enabled(x.device.type):
        return function(x)
    with torch.autocast(x.device.type, enabled=False):
        return function(x)
