"""`ternary`: -1, 0 or 1 times a scale (METHOD 1.3)."""

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor

from edgerazor.kernels import reference
from edgerazor.plugins.quantizers.grouped import Grid, GroupedQuantizer, row_count
from edgerazor.plugins.quantizers.params import TernaryParams


class TernaryQuantizer(GroupedQuantizer):
    """With `absmean` and multiplier 2 a weight becomes 0 exactly when its magnitude is at most the group's mean."""

    params: TernaryParams

    def widths(self, shape: tuple[int, ...]) -> Mapping[int, int]:
        return {1: prod(shape)}

    def _grid(self, groups: Tensor) -> Grid:
        if self.params.scale == "absmean":
            scale = reference.absmean_scale(groups, self.params.scale_multiplier)
        else:
            scale = reference.absmax_scale(groups, 1)
        return Grid(reference.round_scale(scale, self.params.scale_dtype), -1, 1)

    def _qmax(self, groups: Tensor) -> Tensor:
        return torch.ones(row_count(groups), dtype=torch.int8, device=groups.device)
