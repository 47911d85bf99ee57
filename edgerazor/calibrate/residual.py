"""What a model adds the output of a matrix to, seen as it computes: its residual stream, where that is next."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_SUMS = (torch.add, torch.Tensor.add, torch.Tensor.add_, torch.Tensor.__add__, torch.Tensor.__iadd__)


class SeenSums(TorchFunctionMode):
    """While it is entered, calls `see` with both terms of every sum of two tensors of one shape, before it is made."""

    def __init__(self, see: Callable[[Tensor, Tensor], None]):
        super().__init__()
        self._see = see

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if function in _SUMS and not kwargs and len(args) == 2:
            first, second = args
            if isinstance(first, Tensor) and isinstance(second, Tensor) and first.shape == second.shape:
                self._see(first, second)
        return function(*args, **(kwargs or {}))
