"""`int`: b-bit integers scaled by the largest magnitude of a group (METHOD 1.3)."""

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor

from edgerazor.kernels import reference
from edgerazor.plugins.quantizers.grouped import Grid, GroupedQuantizer, row_count
from edgerazor.plugins.quantizers.params import IntParams


class IntQuantizer(GroupedQuantizer):
    """scale = max(max |x|, 1e-5) / qmax, codes in [-qmax, qmax]; `symmetric: false` reaches -qmax-1."""

    params: IntParams

    def __init__(self, params: IntParams):
        super().__init__(params)
        self.qmax = 2 ** (params.bits - 1) - 1
        self.symmetric = params.symmetric

    def widths(self, shape: tuple[int, ...]) -> Mapping[int, int]:
        return {self.qmax: prod(shape)}

    def _grid(self, groups: Tensor) -> Grid:
        if self.symmetric:
            scale = reference.absmax_scale(groups, self.qmax)
        else:
            scale = reference.asymmetric_scale(groups, self.qmax)
        lowest = -self.qmax if self.symmetric else -self.qmax - 1
        return Grid(reference.round_scale(scale, self.params.scale_dtype), lowest, self.qmax)

    def _qmax(self, groups: Tensor) -> Tensor:
        return torch.full((row_count(groups),), self.qmax, dtype=torch.int8, device=groups.device)
