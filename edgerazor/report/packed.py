"""What a packed checkpoint says of its matrices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from edgerazor.checkpoint import PackedCheckpoint, open_checkpoint
from edgerazor.core.names import layer_pattern
from edgerazor.core.registry import Registry
from edgerazor.core.tensor import mean_bits


@dataclass(frozen=True)
class Matrix:
    """A matrix: its module, how many weights it has, and bits for each, scales included."""

    name: str
    weights: int
    bits: float

    @property
    def layer(self) -> int | None:
        """Of the decoder; None of an embedding or a head."""
        return next((int(part) for part in self.name.split(".") if part.isdecimal()), None)


@dataclass(frozen=True)
class PackedFacts:
    """A packed checkpoint without its numbers.

    Attributes:
        recipe: that it was made by.
        parameters: of the model.
        bits: mean of the quantized weights, scales included.
        matrices: all of two axes, those at 16 bit too.
        evaluation: held-out figures that were measured when it was packed.
    """

    recipe: Mapping[str, Any]
    parameters: int
    bits: float
    matrices: tuple[Matrix, ...]
    evaluation: Mapping[str, Any]


def packed_facts(folder: Path, registry: Registry) -> PackedFacts:
    """Read a packed checkpoint's configuration and the headers of its tensors.

    Raises:
        CheckpointError: it is damaged, or no packed checkpoint.
    """
    opened = open_checkpoint(folder, registry=registry)
    matrices = tuple(matrix for name in opened.names() if (matrix := _matrix(opened, name)) is not None)
    manifest = opened.manifest
    bits = manifest.bits_per_weight.effective
    return PackedFacts(opened.recipe, manifest.parameters, bits, matrices, manifest.evaluation or {})


def bits_of_layers(matrices: Sequence[Matrix]) -> list[tuple[float, float]]:
    """Number of a decoder layer and mean bits per weight of its matrices."""
    layers = sorted({matrix.layer for matrix in matrices if matrix.layer is not None})
    return [(layer, _mean([matrix for matrix in matrices if matrix.layer == layer])) for layer in layers]


def bits_of_kinds(matrices: Sequence[Matrix]) -> dict[str, str]:
    """Bits per weight of the matrices that differ by their layer alone, by `layer_pattern`; or their range."""
    groups: dict[str, list[Matrix]] = {}
    for matrix in matrices:
        groups.setdefault(layer_pattern(matrix.name), []).append(matrix)
    found = {}
    for pattern, group in groups.items():
        lowest, highest = (f"{pick(matrix.bits for matrix in group):.2f}" for pick in (min, max))
        found[pattern] = lowest if lowest == highest else f"{lowest} to {highest}, mean {_mean(group):.2f}"
    return found


def _matrix(opened: PackedCheckpoint, name: str) -> Matrix | None:
    module = name.removesuffix(".weight")
    if module not in opened.section.modules:
        header = opened.headers[name]
        if len(header.shape) < 2 or header.dtype is None:
            return None
        return Matrix(module, prod(header.shape), 8.0 * header.dtype.itemsize)
    layout = opened.section.layout(module)
    rows, groups = opened.headers[f"{module}.weight_scale"].shape
    counts = [rows - layout.wide_rows, layout.wide_rows] if len(layout.qmax) == 2 else [rows]
    kinds = zip(layout.storage, layout.qmax, counts, strict=True)
    # Three levels in a nibble are a quantizer that is not symmetric: it has four.
    nominal = sum(count * mean_bits({qmax: 1}, storage == "t5" or qmax > 1) for storage, qmax, count in kinds) / rows
    return Matrix(module, rows * groups * layout.group_size, nominal + 16 / layout.group_size)


def _mean(matrices: Sequence[Matrix]) -> float:
    return sum(matrix.weights * matrix.bits for matrix in matrices) / sum(matrix.weights for matrix in matrices)
