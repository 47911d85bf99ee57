"""What all built-in quantizers share: groups along the last axis, scales, codes (METHOD 1.2)."""

from abc import abstractmethod

import torch
from torch import Tensor

from edgerazor.core.contracts import Quantizer
from edgerazor.core.group_sizes import check_group_size
from edgerazor.core.tensor import QuantizedTensor, straight_through
from edgerazor.kernels import dispatch
from edgerazor.kernels.reference import GroupRule
from edgerazor.schemas.components import QuantizerParams


class GroupedQuantizer(Quantizer):
    """A quantizer defined by a scale per group and a range of codes; subclasses give the grid and the widths."""

    params: QuantizerParams

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raise PlanError unless the group size divides the columns."""
        check_group_size(shape[-1], self.params.group_size)

    @abstractmethod
    def _rule(self, x: Tensor) -> GroupRule:
        """Scale and range of codes of the groups of `x [..., C]`."""

    @torch.no_grad()
    def quantize(self, x: Tensor) -> QuantizedTensor:
        """Codes and scales of `x [..., C]`, any float dtype; computed in float32."""
        self.check_shape(x.shape)
        rule = self._rule(x)
        return self._quantized(rule, *dispatch.quantize(x, rule, self.params.group_size))

    @torch.no_grad()
    def quantize_dequantize(self, x: Tensor) -> tuple[QuantizedTensor, Tensor]:
        """Codes and scales, and the values they stand for in the dtype of `x`, in one pass."""
        self.check_shape(x.shape)
        rule = self._rule(x)
        codes, scale, value = dispatch.quantize_dequantize(x, rule, self.params.group_size)
        return self._quantized(rule, codes, scale), value

    def fake_quantize(self, x: Tensor) -> Tensor:
        """`quantize(x).dequantize(x.dtype)` bit for bit; the gradient passes straight through."""
        return straight_through(x, self._fake_quantize)

    def _fake_quantize(self, x: Tensor) -> Tensor:
        self.check_shape(x.shape)
        return dispatch.fake_quantize(x, self._rule(x), self.params.group_size)

    def _quantized(self, rule: GroupRule, codes: Tensor, scale: Tensor) -> QuantizedTensor:
        qmax = rule.qmax
        if not isinstance(qmax, Tensor):
            qmax = torch.full((row_count(codes),), qmax, dtype=torch.int8, device=codes.device)
        return QuantizedTensor(codes, scale, qmax, self.params.group_size or codes.shape[-1])


def row_count(x: Tensor) -> int:
    """Rows of `x [..., C]`: the product of the leading axes."""
    return x.shape[:-1].numel()
