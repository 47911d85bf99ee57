"""Linear layers and embeddings that quantize as they compute (METHOD 3)."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgerazor.core.layers.embedding import make_embedding
from edgerazor.core.layers.linear import QuantLinear, make_linear
from edgerazor.core.outputs import Head
from tests.plugins.quantizer_cases import build, cases

INT8 = {"bits": 8, "group_size": 16, "scale_dtype": "float32"}


def linear(*, bias: bool = True, activation: bool = True, **values: Any) -> Any:
    torch.manual_seed(0)
    module = nn.Linear(64, 24, bias=bias)
    make_linear(module, build("ternary", group_size=32, **values), build("int", **INT8) if activation else None)
    return module


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", [True, False])
def test_a_linear_layer_multiplies_quantized_by_quantized(bias: bool, activation: bool) -> None:
    module, x = linear(bias=bias, activation=activation), torch.randn(2, 5, 64, requires_grad=True)
    value = build("int", **INT8).quantize(x).dequantize() if activation else x.detach()
    weight = module.weight_quantizer.quantize(module.weight).dequantize()
    out = module(x)
    assert torch.equal(out, functional.linear(value, weight, module.bias))
    upstream = torch.randn_like(out)
    out.backward(upstream)
    torch.testing.assert_close(x.grad, upstream @ weight)
    torch.testing.assert_close(module.weight.grad, torch.einsum("bso,bsi->oi", upstream, value))
    if bias:
        torch.testing.assert_close(module.bias.grad, upstream.sum(dim=(0, 1)))


def test_without_quantizers_it_is_a_plain_linear_layer() -> None:
    module = nn.Linear(64, 24)
    x = torch.randn(3, 64)
    expected = module(x)
    make_linear(module, None, None)
    assert isinstance(module, QuantLinear) and torch.equal(module(x), expected)


def test_autocast_computes_the_product_in_its_dtype_from_float32_codes() -> None:
    module, x = linear(activation=False), torch.randn(3, 64)
    weight = module.weight_quantizer.fake_quantize(module.weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = module(x)
    assert out.dtype == torch.bfloat16
    expected = functional.linear(x.bfloat16(), weight.bfloat16(), module.bias.bfloat16())
    torch.testing.assert_close(out, expected)


def test_an_interceptor_takes_the_product_over() -> None:
    module, x = linear(), torch.randn(3, 64)
    plain, seen = module(x), []

    def intercept(hidden: Tensor, head: Head) -> Tensor:
        seen.append((hidden, head))
        return head.logits(hidden) * 2

    module.interceptor = intercept
    assert torch.equal(module(x), 2 * plain)
    module.interceptor = None
    assert torch.equal(module(x), plain)
    (hidden, head), *others = seen
    assert hidden is x and head.bias is module.bias and not others


@pytest.mark.parametrize(("name", "values"), cases())
def test_an_embedding_gathers_from_the_quantized_table(name: str, values: dict[str, Any]) -> None:
    torch.manual_seed(0)
    module, quantizer = nn.Embedding(40, 128), build(name, **values, group_size=32)
    make_embedding(module, quantizer)
    ids = torch.randint(0, 40, (2, 7))
    out = module(ids)
    assert torch.equal(out, quantizer.quantize(module.weight).dequantize()[ids])
    upstream = torch.randn_like(out)
    out.backward(upstream)
    plain = nn.Embedding(40, 128)
    plain(ids).backward(upstream)
    assert torch.equal(module.weight.grad, plain.weight.grad)


def test_an_embedding_keeps_its_padding_index() -> None:
    module = nn.Embedding(10, 32, padding_idx=3)
    make_embedding(module, build("int", bits=4, group_size=32))
    module(torch.tensor([[3, 4, 3]])).sum().backward()
    assert not bool(module.weight.grad[3].any()) and bool(module.weight.grad[4].all())
