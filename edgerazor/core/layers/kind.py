"""What the library has to know about one kind of layer to quantize, train, pack and restore it.

Planning, applying, packing, loading and verifying loop over `LAYER_KINDS` (in `table.py`) and ask; another kind is one
more file and one more entry there.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from edgerazor.core.contracts import Quantizer
from edgerazor.core.layers.matrices import Matrices
from edgerazor.core.layers.packed import PackedWeight, TiedPackedWeight
from edgerazor.core.layers.quantized_linear import InputSlot
from edgerazor.core.packing import Layout
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import CheckpointError

SMALLEST_GROUP = 32  # of those that engines take; where it divides no row, a row is a group
_WEIGHTS_AT_ONCE = 1 << 24  # quantized in one go; bounds the float32 copies of a large embedding


class LayerKind(ABC):
    """One kind of layer. Methods take a layer as plans list it, or the packed module that stands in its place.

    Attributes:
        name: in plans and tables.
        packed: module that computes from packed codes in the place of such a layer.
        tied_packed: module that computes from the packed codes of another layer; None where there is no such thing.
        quantizes_inputs: whether the quantizer of activations applies to its inputs.
        rows_may_be_whole: a row, or an input, that no usual group size divides has one scale.
    """

    name: ClassVar[str]
    packed: ClassVar[type[PackedWeight]]
    tied_packed: ClassVar[type[TiedPackedWeight] | None] = None
    quantizes_inputs: ClassVar[bool] = True
    rows_may_be_whole: ClassVar[bool] = False

    @abstractmethod
    def matches(self, layer: nn.Module) -> bool:
        """Whether a layer is of this kind, as transformers built it or as `make_trainable` left it."""

    @abstractmethod
    def make_trainable(
        self, layer: Any, quantizer: Quantizer, activation: Quantizer | None, slot: InputSlot | None
    ) -> None:
        """Turn a layer into a quantization-aware one in place; names, ties, hooks and `requires_grad` stay.

        Args:
            layer: of this kind.
            quantizer: of the weight.
            activation: of the inputs, None where they stay as they are.
            slot: layers that have one in common share the quantized input.
        """

    @abstractmethod
    def restore(self, model: nn.Module, name: str, weight: nn.Parameter) -> None:
        """Put an ordinary layer that holds `weight` in the place of the packed module `name`."""

    def is_plain(self, layer: nn.Module) -> bool:
        """Whether a layer is just this kind: no subclass, which may have a forward of its own."""
        return self.matches(layer)

    def find(self, model: nn.Module, name: str) -> nn.Module | None:
        """The layer of that full name; None if there is none of this kind."""
        try:
            found = model.get_submodule(name)
        except AttributeError:
            return None
        return found if self.matches(found) else None

    def layers(self, model: nn.Module) -> Iterator[nn.Module]:
        """All layers of this kind."""
        return (module for module in model.modules() if self.matches(module))

    def owner(self, layer: Any) -> nn.Module:
        """The module whose forward pass uses the weight."""
        return layer  # type: ignore[no-any-return]

    def parameter_name(self, name: str) -> str:
        """Full name of the parameter that the codes are made from, given that of the layer."""
        return f"{name}.weight"

    def matrices(self, layer: Any) -> Matrices:
        """How the weight reads as matrices."""
        return Matrices.along_last_axis(layer.weight.shape)

    def input_columns(self, layer: Any) -> int:
        """Width of the inputs along which the quantizer of activations goes."""
        return self.matrices(layer).columns

    def product_rows(self, layer: Any, x: Tensor) -> Tensor | None:
        """What the rows of a quantization-aware layer's weight are multiplied by when it is given `x`.

        Returns:
            `[N, columns]`, quantized as the layer does; None where not all rows are multiplied by the same.
        """
        quantizer = layer.input_quantizer
        return (x if quantizer is None else quantizer.fake_quantize(x)).reshape(-1, x.shape[-1])

    def quantizer(self, layer: Any) -> Quantizer | None:
        """What quantizes the weight in training; None before a plan is applied, or where it stays at 16 bit."""
        return getattr(layer, "weight_quantizer", None)

    def codes(self, layer: Any) -> QuantizedTensor:
        """Codes `[rows, columns]` of a quantization-aware layer's weight as it is now."""
        quantizer, weight = self.quantizer(layer), layer.weight.detach()
        assert quantizer is not None
        return self.matrices(layer).quantize_in_parts(quantizer, weight, weights_at_once=_WEIGHTS_AT_ONCE)

    def empty_packed(
        self, layer: Any, layout: Layout, activation: Quantizer | None, *, allocate: bool = True
    ) -> PackedWeight:
        """A packed module for the place of `layer`, of its device and dtype, with no content yet.

        Args:
            allocate: False makes no tensors, which `PackedWeight.hold` is to give it.

        Raises:
            CheckpointError: the weight does not fit the layout.
        """
        weight, (rows, columns) = layer.weight, self.matrices(layer).stacked
        if columns % layout.group_size or layout.wide_rows > rows:
            raise CheckpointError(f"a matrix of {rows} rows and {columns} columns does not fit {layout}")
        packed = self.packed(layout, {}, weight.dtype, (rows, columns))
        if allocate:
            shapes = packed.shapes.items()
            packed.hold({name: torch.empty(size, dtype=dtype, device=weight.device) for name, (size, dtype) in shapes})
        self.complete(packed, layer, activation)
        return packed

    def complete(self, packed: Any, layer: Any, activation: Quantizer | None) -> None:  # noqa: B027 - a kind may need nothing
        """Give a new packed module what it needs of `layer` beside the weight, and the quantizer of its inputs."""

    def put_packed(self, model: nn.Module, name: str, packed: nn.Module, activation: Quantizer | None) -> None:
        """Put a module from `empty_packed` or `tied` in the place of the layer `name`."""
        parent, _, leaf = name.rpartition(".")
        model.get_submodule(parent)._modules[leaf] = packed

    def tied(self, layer: Any, owner: PackedWeight, activation: Quantizer | None) -> TiedPackedWeight:
        """A packed module for a layer whose weight is that of `owner`, so that the codes are stored once.

        Raises:
            CheckpointError: layers of this kind cannot borrow a packed weight.
        """
        if self.tied_packed is None:
            raise CheckpointError(f"{type(layer).__name__} layers cannot share the packed weight of another layer")
        return self.tied_packed(owner)

    def values(self, packed: PackedWeight, dtype: torch.dtype) -> Tensor:
        """Values of a packed module in the shape of the parameter it stands for."""
        return packed.quantized().dequantize(dtype)

    def share_inputs(self, module: nn.Module, slot: InputSlot) -> None:  # noqa: B027 - most kinds have none
        """Let a packed module of this kind quantize its input in a slot that other layers of the model use too."""

    def leave_inputs(self, module: nn.Module) -> None:  # noqa: B027 - nothing to do for most kinds
        """Stop quantizing the inputs of a packed module of this kind; do nothing for any other module."""

    def add_up_alike(self, packed: nn.Module, plain: Any) -> None:  # noqa: B027 - nothing to do for most kinds
        """Make the ordinary model `plain` add in the same order as the packed one, so that logits can be equal."""


def of_whole_rows(quantizer: Quantizer, columns: int) -> Quantizer:
    """The quantizer for rows of that many columns: with one scale a row where no usual group size divides them."""
    size = quantizer.params.group_size
    if size is None or columns % size == 0 or columns % SMALLEST_GROUP == 0:
        return quantizer
    return type(quantizer)(quantizer.params.model_copy(update={"group_size": None}))
