"""Quantizers with one fault each."""

from collections.abc import Mapping
from dataclasses import replace
from math import prod

import torch
from torch import Tensor

from edgerazor.core.contracts import Quantizer
from edgerazor.core.tensor import QuantizedTensor, straight_through
from edgerazor.plugins.quantizers.integer import IntQuantizer
from edgerazor.testing import quantizer as laws
from tests.testing.faults import law_of


class Plain(IntQuantizer):
    """Sound, with a fake quantization that follows `quantize` wherever a subclass takes it."""

    def fake_quantize(self, x: Tensor) -> Tensor:
        return straight_through(x, lambda values: self.quantize(values).dequantize(values.dtype))

    def quantize_dequantize(self, x: Tensor) -> tuple[QuantizedTensor, Tensor]:
        return Quantizer.quantize_dequantize(self, x)


@law_of(laws.codes_scales_and_widths_have_their_shapes_and_types)
class WideCodes(Plain):
    def quantize(self, x: Tensor) -> QuantizedTensor:
        found = super().quantize(x)
        return replace(found, codes=found.codes.short())


@law_of(laws.codes_scales_and_widths_have_their_shapes_and_types)
class ScalesWithAnAxisTooMany(Plain):
    def quantize(self, x: Tensor) -> QuantizedTensor:
        found = super().quantize(x)
        return replace(found, scale=found.scale.unsqueeze(-1))


@law_of(laws.the_same_input_gives_the_same_result)
class Remembering(Plain):
    largest = 0.0

    def quantize(self, x: Tensor) -> QuantizedTensor:
        self.largest = max(self.largest, float(x.abs().nan_to_num().max()))
        return super().quantize(x.float().clamp(max=self.largest / 2))


@law_of(laws.the_same_input_gives_the_same_result)
class WritingOnItsInput(Plain):
    def quantize(self, x: Tensor) -> QuantizedTensor:
        return super().quantize(x.data.clamp_(-1, 1))


@law_of(laws.the_same_input_gives_the_same_result)
class Dithering(Plain):
    def quantize(self, x: Tensor) -> QuantizedTensor:
        return super().quantize(x + 0.1 * torch.randn_like(x))


@law_of(laws.codes_are_within_their_width)
class OneCodeTooLow(Plain):
    def quantize(self, x: Tensor) -> QuantizedTensor:
        found = super().quantize(x)
        return replace(found, codes=found.codes.where(found.codes > -self.qmax, -self.qmax - 1))


@law_of(laws.scales_can_be_stored)
class TinyScales(Plain):
    def quantize(self, x: Tensor) -> QuantizedTensor:
        found = super().quantize(x)
        return replace(found, scale=found.scale / 2)


@law_of(laws.fake_quantize_is_what_quantize_stores)
class RoundingInTheDtypeOfItsInput(Plain):
    def fake_quantize(self, x: Tensor) -> Tensor:
        found = self.quantize(x)
        scale = found.scale.to(x.dtype).repeat_interleave(found.group_size, dim=-1)
        return straight_through(x, lambda values: (values / scale).round().clamp(-self.qmax, self.qmax) * scale)


@law_of(laws.fake_quantize_is_what_quantize_stores)
class RoundingOtherwiseOnceItIsFinished(Plain):
    def fake_quantize_only(self, x: Tensor) -> Tensor:
        return self.fake_quantize(x.detach()).nextafter(x.new_zeros(()))


@law_of(laws.the_gradient_passes_straight_through)
class WithoutGradient(Plain):
    def fake_quantize(self, x: Tensor) -> Tensor:
        return self.quantize(x).dequantize(x.dtype)


@law_of(laws.the_gradient_passes_straight_through)
class WithAClippedGradient(Plain):
    def fake_quantize(self, x: Tensor) -> Tensor:
        return super().fake_quantize(x.where(x < 0, x.detach()))


@law_of(laws.widths_are_known_from_the_shape)
class CountingTooManyBits(Plain):
    def widths(self, shape: tuple[int, ...]) -> Mapping[int, int]:
        return {127: prod(shape)}


@law_of(laws.one_pass_gives_what_two_give)
class RoundingTwice(Plain):
    def quantize_dequantize(self, x: Tensor) -> tuple[QuantizedTensor, Tensor]:
        quantized, value = super().quantize_dequantize(x)
        return quantized, (value.float() * 64).round().div(64).to(x.dtype)


@law_of(laws.stored_widths_are_those_of_whole_rows)
class StoringNarrowRows(Plain):
    def stored_widths(self, shape: tuple[int, ...]) -> Mapping[int, int]:
        return {1: prod(shape)}


@law_of(laws.stored_widths_are_those_of_whole_rows)
class ForgettingTheLastColumn(Plain):
    def stored_widths(self, shape: tuple[int, ...]) -> Mapping[int, int]:
        return {self.qmax: prod(shape) - 1}


@law_of(laws.blocks_are_split_where_it_says_so)
class SplittingWhatBelongsTogether(Plain):
    rows_independent = False

    def splits_at(self, rows: int) -> bool:
        return True

    def quantize(self, x: Tensor) -> QuantizedTensor:
        rows = x.reshape(-1, x.shape[-1])
        middle = len(rows) // 2
        turned = torch.cat([rows[:middle], -rows[middle:]]) if len(rows) > 1 else rows
        return super().quantize(turned.reshape(x.shape))


@law_of(laws.leading_axes_are_rows)
class NumberingRowsInEveryMatrix(Plain):
    rows_independent = False

    def quantize(self, x: Tensor) -> QuantizedTensor:
        rows = torch.arange(x.shape[-2] if x.ndim > 1 else 1, device=x.device)
        even = (rows % 2 == 0).unsqueeze(-1).expand(x.shape) if x.ndim > 1 else rows == 0
        return super().quantize(x.where(even, -x))


@law_of(laws.rows_are_as_independent_as_it_says)
class CentringOnOtherRows(Plain):
    def quantize(self, x: Tensor) -> QuantizedTensor:
        rows = x.reshape(-1, x.shape[-1])
        return super().quantize((rows - rows[:1]).reshape(x.shape))


@law_of(laws.rows_are_as_independent_as_it_says)
class NeedingARow(Plain):
    def quantize(self, x: Tensor) -> QuantizedTensor:
        x.reshape(-1, x.shape[-1])[:, 0].max()  # there is none of no rows
        return super().quantize(x)


@law_of(laws.a_group_of_zeros_stays_zero)
class WithoutAZero(Plain):
    def quantize(self, x: Tensor) -> QuantizedTensor:
        found = super().quantize(x)
        return replace(found, codes=found.codes.where(found.codes != 0, 1))


@law_of(laws.not_a_number_passes_through)
class HidingWhatIsNotANumber(Plain):
    def quantize(self, x: Tensor) -> QuantizedTensor:
        return super().quantize(x.nan_to_num())


@law_of(laws.packing_and_unpacking_return_the_tensor)
class OfThreeWidths(Plain):
    rows_independent = False

    def widths(self, shape: tuple[int, ...]) -> Mapping[int, int]:
        kinds = [(7, 15, 127)[row % 3] for row in range(prod(shape[:-1]))]
        return {kind: kinds.count(kind) * shape[-1] for kind in kinds}

    def quantize(self, x: Tensor) -> QuantizedTensor:
        found = super().quantize(x)
        rows = torch.arange(len(found.qmax), device=x.device)
        return replace(found, qmax=torch.tensor([7, 15, 127], device=x.device)[rows % 3].to(torch.int8))


@law_of(laws.autocast_changes_nothing)
class RoundingUnderAutocast(Plain):
    def quantize(self, x: Tensor) -> QuantizedTensor:
        return super().quantize(torch.mm(x.float().reshape(-1, x.shape[-1]), torch.eye(x.shape[-1])).reshape(x.shape))

    def fake_quantize(self, x: Tensor) -> Tensor:
        value = self.quantize(x).dequantize(x.dtype)
        return straight_through(x, lambda _: value)


@law_of(laws.everything_stays_on_the_device)
class MakingWidthsOnTheCPU(Plain):
    def quantize(self, x: Tensor) -> QuantizedTensor:
        found = super().quantize(x)
        return replace(found, qmax=torch.full(tuple(found.qmax.shape), self.qmax, dtype=torch.int8))


@law_of(laws.everything_stays_on_the_device)
class ReadingValuesBack(Plain):
    def quantize(self, x: Tensor) -> QuantizedTensor:
        return super().quantize(x if float(x.sum()) != 1.5 else -x)


@law_of(laws.a_group_size_that_does_not_divide_is_refused_with_the_cure)
class TakingEveryShape(Plain):
    def check_shape(self, shape: tuple[int, ...]) -> None:
        pass
