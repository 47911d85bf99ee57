"""One module of a plan: its matrices, its quantizer, bits and bytes."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from edgerazor.core.layers.matrices import Matrices
from edgerazor.core.layers.table import kind_named
from edgerazor.core.packing import packed_bytes
from edgerazor.core.tensor import mean_bits
from edgerazor.schemas.components import QuantizerParams


@dataclass(frozen=True)
class ModulePlan:
    """One module and what becomes of it.

    Attributes:
        name: full name of the module.
        kind: name of its `LayerKind`: "linear", "embedding", "conv", or "experts" for the matrices of all experts in
            one parameter, which `name` is then the name of.
        matrices: how its weight reads as matrices.
        rule: index of the weight rule that took it.
        params: the quantizer's parameters; None leaves the module at 16 bit.
        widths: `{qmax: number of weights}`.
        stored_widths: the same as a file of whole rows holds them; wider where widths mix inside a row.
        symmetric: False if codes reach -qmax-1.
        tied_to: name of the module that owns the weight, if it is not this one.
    """

    name: str
    kind: str
    matrices: Matrices
    rule: int
    params: QuantizerParams | None
    widths: Mapping[int, int]
    stored_widths: Mapping[int, int]
    symmetric: bool = True
    tied_to: str | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight: `[out_features, in_features]`, `[experts, rows, columns]` or `[out, in, *kernel]`."""
        return self.matrices.shape

    @property
    def group_size(self) -> int:
        """Columns per scale."""
        return (self.params.group_size if self.params else None) or self.matrices.columns

    @property
    def weights(self) -> int:
        """Number of weights."""
        return prod(self.shape)

    @property
    def parameter_name(self) -> str:
        """Full name of the parameter that the codes are made from."""
        return kind_named(self.kind).parameter_name(self.name)

    @property
    def nominal_bits(self) -> float:
        """Bits per weight of the codes: 1.58 for ternary; 16 where it is not quantized."""
        return mean_bits(self.widths, self.symmetric) if self.params else 16.0

    @property
    def effective_bits(self) -> float:
        """Nominal bits plus 16 bits of scale per group."""
        return self.nominal_bits + 16 / self.group_size if self.params else 16.0

    @property
    def bytes(self) -> int:
        """Bytes in a packed checkpoint; 0 for a tied module, whose weight is stored once."""
        if self.tied_to:
            return 0
        if not self.params:
            return 2 * self.weights
        return packed_bytes(self.matrices.stacked, self.stored_widths, self.group_size, symmetric=self.symmetric)
