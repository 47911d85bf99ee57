"""16-bit files whose weights were rounded to a grid before they were saved, as the original release saves students.

Codes and scales are found again where a float16 scale gives every value of a group to the bit. The original computes in
the dtype of the weights, so the scales of a bfloat16 student are bfloat16 numbers, which float16 holds (METHOD 10, F8).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product
from typing import Any

import torch
from torch import Tensor

from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import CheckpointError
from edgerazor.importers.formats import Folder
from edgerazor.kernels.reference import SMALLEST_SCALE

GROUP_SIZES = (256, 128, 64, 32)
_BITS = (2, 3, 4, 5, 6, 7, 8)
_NEIGHBOURS = 8
_PROBE = 16


class FakeQuantized:
    """Reads one folder; every matrix has to lie on a grid but those that `unquantized` names by globs.

    Raises:
        CheckpointError: a glob matches no matrix.
    """

    kind = "16-bit weights on a grid"
    consumed: frozenset[str] = frozenset()
    activations: dict[str, Any] | None = None
    notes: tuple[str, ...] = (
        "how activations, keys and values were quantized the files do not say; set quantization.activations and "
        "quantization.kv_cache with --set",
    )

    def __init__(self, folder: Folder, unquantized: tuple[str, ...]):
        self._folder = folder
        matrices = [name.removesuffix(".weight") for name, header in folder.headers.items() if len(header.shape) == 2]
        for pattern in unquantized:
            if not any(fnmatchcase(name, pattern) for name in matrices):
                raise CheckpointError(f"{folder.path}: --unquantized {pattern}: matches no matrix")
        self._modules = sorted(
            name for name in matrices if not any(fnmatchcase(name, pattern) for pattern in unquantized)
        )
        self._grids: dict[str, _Grid] = {}

    def modules(self) -> list[str]:
        return self._modules

    def read(self, module: str) -> QuantizedTensor:
        weight = self._folder.read(f"{module}.weight")
        if module in self._grids:
            return self._grids[module].place(weight)
        found = recover(weight)
        if found is None:
            raise CheckpointError(
                f"{self._folder.path}: {module}.weight: its values lie on no grid of 2 to 8 bits with float16 scales; "
                f"--unquantized {module} keeps it at 16 bit"
            )
        # Codes are found again at once where the scales are known, and take the memory of half the folder.
        self._grids[module] = _Grid(found.scale, found.qmax, found.group_size)
        return found


@dataclass(frozen=True)
class _Grid:
    """A `QuantizedTensor` without its codes."""

    scale: Tensor
    qmax: Tensor
    group_size: int

    def place(self, weight: Tensor) -> QuantizedTensor:
        codes = _codes(weight.unflatten(-1, (-1, self.group_size)), self.scale.unsqueeze(-1))
        return QuantizedTensor(codes, self.scale, self.qmax, self.group_size)


def _codes(groups: Tensor, scale: Tensor) -> Tensor:
    """int8 `[R, C]` of values `[R, G, size]` that are multiples of scales `[R, G, 1]`."""
    return torch.round(groups.float() / scale.float()).to(torch.int8).flatten(-2)


def recover(weight: Tensor) -> QuantizedTensor | None:
    """Codes and scales that give `weight [R, C]` to the bit; None if there are none.

    The largest groups and the fewest bits are taken. A group of zeros and one other magnitude is ternary.
    """
    rows, columns = weight.shape
    whole = _recover(weight.reshape(1, -1), weight.numel())
    if whole is not None:  # one scale for all, which the largest codes of a row do not tell
        widths = whole.qmax.expand(rows).contiguous()
        return QuantizedTensor(whole.codes.reshape(weight.shape), whole.scale.expand(rows, 1), widths, columns)
    sizes = dict.fromkeys((columns, *(size for size in GROUP_SIZES if columns % size == 0)))
    return next((found for size in sizes if (found := _recover(weight, size)) is not None), None)


def _recover(weight: Tensor, size: int) -> QuantizedTensor | None:
    """As `recover`, for groups of one size."""
    groups = weight.unflatten(-1, (-1, size))
    peak = groups.abs().amax(dim=-1, keepdim=True).float()
    scale = peak.half().clamp_min(SMALLEST_SCALE)
    ternary = _reproduces(groups, scale.float(), 1, 1)
    for bits in _BITS:
        qmax = 2 ** (bits - 1) - 1
        for lowest in (qmax, qmax + 1):
            wide = _scales(groups[~ternary], peak[~ternary], qmax, lowest)
            if wide is not None:
                scale[~ternary] = wide
                widths = torch.where(ternary, 1 if lowest == qmax else qmax, qmax).to(torch.int8)
                alike = bool((widths == widths[:, :1]).all())
                widths = widths[:, 0].contiguous() if alike else widths
                return QuantizedTensor(_codes(groups, scale), scale.squeeze(-1), widths, size)
    return None


def _scales(groups: Tensor, peak: Tensor, qmax: int, lowest: int) -> Tensor | None:
    """float16 `[N, 1]` for groups `[N, g]`, the largest magnitude being code qmax or -lowest; None if one has none.

    With a code more on the negative side scales may be negative, as those of llama.cpp's Q4_0 are; all are positive
    where they can be.
    """
    if len(groups) > _PROBE and _scales(groups[:_PROBE], peak[:_PROBE], qmax, lowest) is None:
        return None
    found = _scales_among(groups, peak, qmax, lowest, list(product(range(qmax, lowest + 1), (1,))))
    if found is None and lowest > qmax:
        found = _scales_among(groups, peak, qmax, lowest, list(product((lowest, qmax), (1, -1))))
    return found


def _scales_among(
    groups: Tensor, peak: Tensor, qmax: int, lowest: int, extremes: Sequence[tuple[int, int]]
) -> Tensor | None:
    """As `_scales`, for some codes of the largest magnitude, each with a sign of the scale; the first that fit."""
    scale = torch.zeros_like(peak, dtype=torch.float16)
    missing = torch.ones(len(groups), dtype=torch.bool)
    steps = sorted(range(-_NEIGHBOURS, _NEIGHBOURS + 1), key=abs)
    for (largest, sign), step in product(extremes, steps):
        if not bool(missing.any()):
            break
        candidate = sign * ((peak[missing] / largest).half().view(torch.int16) + step).view(torch.float16)
        fits = _reproduces(groups[missing], candidate.float(), qmax, lowest)
        rows = missing.nonzero().flatten()[fits]
        scale[rows] = candidate[fits]
        missing[rows] = False
    return None if bool(missing.any()) else scale


def _reproduces(groups: Tensor, scale: Tensor, qmax: int, lowest: int) -> Tensor:
    """Which groups `[..., g]` are codes within -lowest and qmax times their scale, rounded once to their dtype."""
    codes = torch.round(groups.float() / scale)
    same = ((codes * scale).to(groups.dtype) == groups) & (codes <= qmax) & (codes >= -lowest)
    return same.all(dim=-1) & (scale.squeeze(-1).abs() >= SMALLEST_SCALE)
