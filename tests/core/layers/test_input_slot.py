"""Inputs that packed layers share are quantized once, and only while nobody could tell by values or gradients."""

import copy
import pickle
from typing import Any

import torch
from torch import Tensor

from edgerazor.core.layers.quantized_linear import InputSlot
from tests.plugins.quantizer_cases import build


class Counting:
    """int8 in groups of 16, which counts its calls."""

    def __init__(self) -> None:
        self.calls, self._quantizer = 0, build("int", bits=8, group_size=16)
        self.params = self._quantizer.params

    def fake_quantize(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self._quantizer.fake_quantize(x)  # type: ignore[no-any-return]

    def fake_quantize_only(self, x: Tensor) -> Tensor:
        return self.fake_quantize(x)


def test_the_same_tensor_is_quantized_once_and_a_changed_one_anew() -> None:
    quantizer: Any = Counting()
    slot, x = InputSlot(), torch.randn(3, 32)
    first = slot.fake_quantize(x, quantizer)
    assert torch.equal(first, quantizer._quantizer.fake_quantize(x)) and slot.fake_quantize(x, quantizer) is first
    assert quantizer.calls == 1
    x.mul_(2)
    assert torch.equal(slot.fake_quantize(x, quantizer), quantizer._quantizer.fake_quantize(x)) and quantizer.calls == 2
    slot.fake_quantize(torch.randn(3, 32), quantizer)
    assert quantizer.calls == 3


def test_gradients_pass_and_inference_tensors_are_not_kept() -> None:
    quantizer: Any = Counting()
    slot, x = InputSlot(), torch.randn(3, 32, requires_grad=True)
    for _ in range(2):
        slot.fake_quantize(x, quantizer).sum().backward()
    assert torch.equal(x.grad, torch.full((3, 32), 2.0)) and quantizer.calls == 2
    with torch.inference_mode():
        y = torch.randn(3, 32)
        slot.fake_quantize(y, quantizer)
        y.mul_(2)
        assert torch.equal(slot.fake_quantize(y, quantizer), quantizer._quantizer.fake_quantize(y))


def test_copies_start_without_values() -> None:
    slot, quantizer = InputSlot(), build("int", bits=8, group_size=16)
    x = torch.randn(3, 32)
    slot.fake_quantize(x, quantizer)
    for other in (copy.deepcopy(slot), pickle.loads(pickle.dumps(slot))):
        assert (
            other is not slot
            and other._source is None
            and torch.equal(other.fake_quantize(x, quantizer), slot.fake_quantize(x, quantizer))
        )
