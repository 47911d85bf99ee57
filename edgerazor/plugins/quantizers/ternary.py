"""`ternary`: -1, 0 or 1 times a scale (METHOD 1.3)."""

from collections.abc import Mapping
from math import prod

from torch import Tensor

from edgerazor.kernels.reference import GroupRule
from edgerazor.plugins.quantizers.grouped import GroupedQuantizer
from edgerazor.plugins.quantizers.params import TernaryParams


class TernaryQuantizer(GroupedQuantizer):
    """With `absmean` and multiplier 2 a weight becomes 0 exactly when its magnitude is at most the group's mean."""

    params: TernaryParams

    def widths(self, shape: tuple[int, ...]) -> Mapping[int, int]:
        return {1: prod(shape)}

    def _rule(self, x: Tensor) -> GroupRule:
        return GroupRule(self.params.scale, 1, self.params.scale_multiplier, self.params.scale_dtype)
