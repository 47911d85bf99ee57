"""Which quantizers the laws run over, and the tensors they meet."""

from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import assume
from hypothesis import strategies as st
from torch import Tensor

from edgerazor.core.discovery import load_plugins
from edgerazor.errors import PlanError

REGISTRY = load_plugins(external=False)

# A quantizer that is not named here runs with its defaults, so it is tested by being registered.
PARAMETERS: dict[str, list[dict[str, Any]]] = {
    "int": [
        *({"bits": bits, "symmetric": True} for bits in range(2, 9)),
        *({"bits": bits, "symmetric": False} for bits in (2, 4, 8)),
        *({"bits": bits, "symmetric": False, "scale": "signed_absmax"} for bits in (2, 4, 8)),
    ],
    "ternary": [{"scale": "absmean"}, {"scale": "absmax"}, {"scale": "absmean", "scale_multiplier": 1.5}],
    "sqmp": [
        *({"high_ratio": ratio} for ratio in (0.5, 0.125, "1/3", 0, 1)),
        {"high_ratio": 0.5, "high_bits": 8},
        {"high_ratio": 0.5, "placement": "variance_rows"},
        {"high_ratio": 0.25, "placement": "variance_groups"},
        {"high_ratio": 0.25, "placement": "first_groups"},
        {"high_ratio": 0.5, "placement": "first_columns"},
        {"high_ratio": 0.34, "placement": "strided_groups"},
        {"high_rows": "0, 2-3", "placement": "rows"},
    ],
}
GROUP_SIZES = (32, 64, None)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MILD = ("normal", "unit", "zero", "constant", "ties", "positive")
WILD = (*MILD, "spike", "floor", "vanishing", "enormous")


def cases() -> list[Any]:
    """One pytest parameter `(name, values)` per quantizer whose codes are stored and parameter set."""
    return [
        pytest.param(name, values, id=" ".join([name, *(f"{key}={value}" for key, value in values.items())]))
        for name in REGISTRY.names("quantizer")
        if name != "unsigned_int"
        for values in PARAMETERS.get(name, [{}])
    ]


def build(name: str, **values: Any) -> Any:
    """A quantizer outside a recipe; keys that its schema does not have are left out."""
    declared = REGISTRY.declared("quantizer", name)
    assert declared is not None
    known = {key: value for key, value in values.items() if key in declared.model_fields}
    return REGISTRY.build(REGISTRY.params("quantizer", name, **known))


class Example(NamedTuple):
    """A quantizer and a tensor that fits it."""

    quantizer: Any
    x: Tensor


@st.composite
def examples(
    draw: st.DrawFn,
    name: str,
    values: dict[str, Any],
    *,
    kinds: tuple[str, ...] = WILD,
    dtypes: tuple[torch.dtype, ...] = DTYPES,
    scale_dtypes: tuple[str, ...] = ("float16", "float16_bfloat16", "float32"),
) -> Example:
    """Any group size and scale dtype, one to four axes, every stretch of 32 columns of a kind of its own."""
    quantizer = build(
        name,
        **values,
        group_size=draw(st.sampled_from(GROUP_SIZES)),
        scale_dtype=draw(st.sampled_from(scale_dtypes)),
    )
    leading = draw(st.sampled_from([(), (1,), (4,), (7,), (2, 3), (2, 2, 3)]))
    shape = (*leading, draw(st.sampled_from([64, 128, 192])))
    try:
        quantizer.check_shape(shape)
    except PlanError:
        assume(False)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    tiles = torch.Size(shape).numel() // 32
    chosen = [draw(st.sampled_from(kinds)) for _ in range(min(tiles, 6))]
    x = torch.stack([tile(chosen[index % len(chosen)], generator) for index in range(tiles)]).reshape(shape)
    dtype = draw(st.sampled_from(dtypes))
    return Example(quantizer, x.clamp(torch.finfo(dtype).min, torch.finfo(dtype).max).to(dtype))


def tile(kind: str, generator: torch.Generator) -> Tensor:
    """32 neighbouring columns, float32."""
    normal = torch.randn(32, generator=generator)
    signs = torch.where(torch.rand(32, generator=generator) < 0.5, -1.0, 1.0)
    return {
        "unit": normal,
        "normal": normal * 10.0 ** float(torch.randint(-3, 3, (), generator=generator)),
        "zero": torch.zeros(32),
        "constant": signs * normal[0],
        "ties": torch.randint(-15, 16, (32,), generator=generator) / 2,
        "positive": normal.abs(),
        "spike": normal.index_fill(0, torch.tensor([5]), 1e6),
        "floor": normal * 1e-5,
        "vanishing": normal * 1e-30,
        "enormous": normal * 1e30,
    }[kind]


def groups_of(x: Tensor, group_size: int) -> Tensor:
    """float32 `[R, G, g]` of `x [..., C]`."""
    return x.float().reshape(x.shape[:-1].numel(), -1, group_size)


def qmax_of_groups(quantized: Any) -> Tensor:
    """`qmax` as int32 `[R, 1, 1]` or `[R, G, 1]`, to compare with codes `[R, G, g]`."""
    qmax = quantized.qmax if quantized.qmax.ndim == 2 else quantized.qmax.unsqueeze(-1)
    return qmax.int().unsqueeze(-1)
