"""Inputs that layers share are quantized once, and only while that cannot be seen in values or gradients."""

import copy
import pickle
from typing import Any

import torch
from torch import Tensor

from edgerazor.core.layers.shared_input import SharedInput
from tests.plugins.quantizer_cases import build


class Counting:
    """int8 in groups of 16, which counts its calls."""

    def __init__(self) -> None:
        self.calls, self._quantizer = 0, build("int", bits=8, group_size=16)

    def fake_quantize(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self._quantizer.fake_quantize(x)  # type: ignore[no-any-return]


def test_the_same_tensor_is_quantized_once_and_a_changed_one_anew() -> None:
    quantizer: Any = Counting()
    shared, x = SharedInput(quantizer), torch.randn(3, 32)
    first = shared(x)
    assert torch.equal(first, quantizer._quantizer.fake_quantize(x)) and shared(x) is first
    assert quantizer.calls == 1
    x.mul_(2)
    assert torch.equal(shared(x), quantizer._quantizer.fake_quantize(x)) and quantizer.calls == 2
    shared(torch.randn(3, 32))
    assert quantizer.calls == 3


def test_gradients_pass_and_inference_tensors_are_not_kept() -> None:
    quantizer: Any = Counting()
    shared, x = SharedInput(quantizer), torch.randn(3, 32, requires_grad=True)
    for _ in range(2):
        shared(x).sum().backward()
    assert torch.equal(x.grad, torch.full((3, 32), 2.0)) and quantizer.calls == 2
    with torch.inference_mode():
        y = torch.randn(3, 32)
        shared(y)
        y.mul_(2)
        assert torch.equal(shared(y), quantizer._quantizer.fake_quantize(y))


def test_copies_start_without_values() -> None:
    shared = SharedInput(build("int", bits=8, group_size=16))
    x = torch.randn(3, 32)
    shared(x)
    for other in (copy.deepcopy(shared), pickle.loads(pickle.dumps(shared))):
        assert other is not shared and other._values is None and torch.equal(other(x), shared(x))
