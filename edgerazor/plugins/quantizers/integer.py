"""`int`: b-bit integers scaled by the largest magnitude of a group (METHOD 1.3)."""

from collections.abc import Mapping
from math import prod

from torch import Tensor

from edgerazor.kernels.reference import GroupRule
from edgerazor.plugins.quantizers.grouped import GroupedQuantizer
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

    def _rule(self, x: Tensor) -> GroupRule:
        return GroupRule("absmax" if self.symmetric else "asymmetric", self.qmax, scale_dtype=self.params.scale_dtype)
