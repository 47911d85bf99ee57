"""Embeddings: quantization-aware and packed. The rows that are looked up are quantized, not the whole table."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgerazor.core.contracts import Quantizer
from edgerazor.core.layers.kind import LayerKind
from edgerazor.core.layers.packed import PackedWeight, select_rows
from edgerazor.core.layers.quantized_linear import InputSlot, differentiable_weight
from edgerazor.core.layers.weight_cache import WeightCache


class QuantEmbedding(nn.Embedding):
    """An embedding whose looked-up rows are quantized, or whose table is where rows depend on each other."""

    weight_quantizer: Quantizer | None
    weight_cache: WeightCache | None = None

    def forward(self, input: Tensor) -> Tensor:
        return _scaled(self._rows(input), _factor(self))

    def _rows(self, input: Tensor) -> Tensor:
        if self.weight_quantizer is None:
            return functional.embedding(input, self.weight, **self._options())
        if not self.weight_quantizer.rows_independent:
            table = differentiable_weight(self.weight, self.weight_quantizer, self.weight_cache, self.weight.dtype)
            return functional.embedding(input, table, **self._options())
        return self.weight_quantizer.fake_quantize(functional.embedding(input, self.weight, **self._options()))

    def _options(self) -> dict[str, Any]:
        return {
            "padding_idx": self.padding_idx,
            "max_norm": self.max_norm,
            "norm_type": self.norm_type,
            "scale_grad_by_freq": self.scale_grad_by_freq,
            "sparse": self.sparse,
        }


def _factor(layer: nn.Module) -> float | None:
    """What transformers' scaled word embeddings multiply looked-up rows by; None for an ordinary embedding."""
    return getattr(layer, "scalar_embed_scale", None)


def _scaled(rows: Tensor, factor: float | None) -> Tensor:
    """Rows times a float32 factor that is rounded to their dtype first, as scaled word embeddings do it."""
    if factor is None:
        return rows
    return rows * torch.tensor(factor, dtype=torch.float32).to(rows.dtype)


def make_embedding(module: nn.Embedding, weight: Quantizer) -> None:
    """Turn an embedding into a `QuantEmbedding` in place."""
    module.__class__ = QuantEmbedding
    module.weight_quantizer = weight  # type: ignore[assignment]


class PackedEmbedding(PackedWeight):
    """An embedding from packed codes; with `compute = "packed"` only the rows looked up are dequantized.

    Attributes:
        factor: what looked-up rows are multiplied by, if the model's own layer does so.
        original: class of that layer.
    """

    padding_idx: int | None = None
    factor: float | None = None
    original: type[nn.Embedding] = nn.Embedding

    @property
    def num_embeddings(self) -> int:
        return self.rows

    @property
    def embedding_dim(self) -> int:
        return self.columns

    def forward(self, input: Tensor) -> Tensor:
        return _scaled(self._rows(input), self.factor)

    def _rows(self, input: Tensor) -> Tensor:
        if self.compute == "cached":
            return functional.embedding(input, self.weight)
        rows = select_rows(self.layout, self.packed_tensors, input.flatten(), self.columns)
        return rows.dequantize(self.value_dtype).reshape(*input.shape, self.columns)


class Embedding(LayerKind):
    """`nn.Embedding`, scaled or not; its inputs are indices, which no quantizer of activations applies to."""

    name: ClassVar = "embedding"
    packed: ClassVar = PackedEmbedding
    quantizes_inputs: ClassVar = False

    def matches(self, layer: nn.Module) -> bool:
        return isinstance(layer, nn.Embedding)

    def is_plain(self, layer: nn.Module) -> bool:
        return type(layer) is nn.Embedding or (self.matches(layer) and _factor(layer) is not None)

    def make_trainable(
        self, layer: nn.Embedding, quantizer: Quantizer, activation: Quantizer | None, slot: InputSlot | None
    ) -> None:
        make_embedding(layer, quantizer)

    def complete(self, packed: Any, layer: nn.Embedding, activation: Quantizer | None) -> None:
        packed.padding_idx, packed.factor, packed.original = layer.padding_idx, _factor(layer), type(layer)

    def restore(self, model: nn.Module, name: str, weight: nn.Parameter) -> None:
        packed: Any = model.get_submodule(name)
        embedding: Any = nn.Embedding(weight.shape[0], weight.shape[1], packed.padding_idx, device="meta")
        embedding.weight = weight
        if packed.factor is not None:
            embedding.__class__, embedding.scalar_embed_scale = packed.original, packed.factor
            embedding.register_buffer("embed_scale", torch.tensor(packed.factor), persistent=False)
        model.set_submodule(name, embedding)
