"""`int`: b-bit integers scaled by the largest magnitude of a group (METHOD 1.3)."""

from collections.abc import Mapping
from math import prod
from typing import Literal

from torch import Tensor

from edgerazor.kernels import dispatch
from edgerazor.kernels.reference import GroupRule
from edgerazor.plugins.quantizers.grouped import GroupedQuantizer
from edgerazor.plugins.quantizers.params import IntParams


class IntQuantizer(GroupedQuantizer):
    """scale = max(max |x|, 1e-5) / qmax, codes in [-qmax, qmax]; `symmetric: false` reaches -qmax-1.

    With `scale: signed_absmax` the largest magnitude of a group has code -qmax-1, and the scale the sign that takes: a
    finer grid for half of the groups. llama.cpp's Q4_0 does the same.
    """

    params: IntParams

    def __init__(self, params: IntParams):
        super().__init__(params)
        self.qmax = 2 ** (params.bits - 1) - 1
        self.symmetric, self.signed_scale = params.symmetric, params.scale == "signed_absmax"
        kind: Literal["absmax", "asymmetric", "signed_asymmetric"] = "absmax" if params.symmetric else "asymmetric"
        if self.signed_scale:
            kind = "signed_asymmetric"
        self._groups = GroupRule(kind, self.qmax, scale_dtype=params.scale_dtype)
        # A subclass may round otherwise.
        self._few_rows = dispatch.few_rows(self._groups, params.group_size) if type(self) is IntQuantizer else None

    def widths(self, shape: tuple[int, ...]) -> Mapping[int, int]:
        return {self.qmax: prod(shape)}

    def fake_quantize_only(self, x: Tensor) -> Tensor:
        few = self._few_rows
        if few is None or x.requires_grad or not few.takes(x):
            return self.fake_quantize(x.detach())
        return few(x)

    def _rule(self, x: Tensor) -> GroupRule:
        return self._groups
