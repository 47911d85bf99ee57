"""The tensors a quantizer is tried on: groups of many kinds, in every dtype, with any leading axes."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from edgerazor.errors import PlanError

KINDS = ("normal", "large", "small", "zero", "constant", "halves", "positive", "spike", "vanishing", "enormous")
LEADING: tuple[tuple[int, ...], ...] = ((4,), (1,), (), (8,), (7,), (2, 3), (2, 2, 3))


@dataclass(frozen=True)
class TensorExample:
    """A tensor, described; each group of columns is of the next kind.

    Attributes:
        shape: `[..., columns]`.
        group_size: columns of a group.
        dtype: name of a torch dtype.
        kinds: of the groups, repeated as often as it takes.
        seed: of the random numbers.
    """

    shape: tuple[int, ...]
    group_size: int
    dtype: str
    kinds: tuple[str, ...]
    seed: int

    def tensor(self) -> Tensor:
        """The tensor itself, on the CPU."""
        generator = torch.Generator().manual_seed(self.seed)
        count = torch.Size(self.shape).numel() // self.group_size
        kinds = (self.kinds[index % len(self.kinds)] for index in range(count))
        groups = torch.stack([_group(kind, self.group_size, generator) for kind in kinds])
        dtype: torch.dtype = getattr(torch, self.dtype)
        limits = torch.finfo(dtype)
        return groups.clamp(limits.min, limits.max).to(dtype).reshape(self.shape)

    def other(self) -> "TensorExample":
        """Another tensor of the same shape."""
        return replace(self, seed=self.seed + 1, kinds=("normal",))


@st.composite
def tensor_examples(draw: st.DrawFn, quantizer: Any) -> TensorExample:
    """Shapes that the quantizer's own `check_shape` lets through."""
    group_size = quantizer.params.group_size
    shapes = st.tuples(st.sampled_from(LEADING), st.integers(1, 3))
    leading, groups = draw(shapes.filter(lambda drawn: _fits(quantizer, _shape(group_size, *drawn))))
    shape = _shape(group_size, leading, groups)
    return TensorExample(
        shape,
        group_size or shape[-1],
        draw(st.sampled_from(("float32", "bfloat16", "float16"))),
        draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=5).map(tuple)),
        draw(st.integers(0, 10**6)),
    )


def _shape(group_size: int | None, leading: tuple[int, ...], groups: int) -> tuple[int, ...]:
    return (*leading, groups * (group_size or 32))


def _fits(quantizer: Any, shape: tuple[int, ...]) -> bool:
    try:
        quantizer.check_shape(shape)
    except PlanError:
        return False
    return True


def _group(kind: str, size: int, generator: torch.Generator) -> Tensor:
    """float32 `[size]`."""
    normal = torch.randn(size, generator=generator)
    if kind == "spike":
        normal[size // 2] = 1e6
    return {
        "normal": normal,
        "large": 1e3 * normal,
        "small": 1e-3 * normal,
        "zero": torch.zeros(size),
        "constant": normal.sign() * normal[0],
        "halves": (normal * 8).round() / 2,
        "positive": normal.abs(),
        "spike": normal,
        "vanishing": 1e-30 * normal,
        "enormous": 1e30 * normal,
    }[kind]
