"""The base of modules that compute from packed codes: what a finished checkpoint loads as (TRANSFORMERS 5 and 7).

Codes and scales are buffers under the names of the packed format, so a state dict of the model is the checkpoint. The
values are `dequantize(codes, scale)` in the dtype of the model, exactly what quantization-aware training saw.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from edgerazor.core.packing import Layout, pack_bits, unpack, unpack_bits
from edgerazor.core.tensor import QuantizedTensor

Compute = Literal["cached", "packed"]


class PackedWeight(nn.Module):
    """A matrix `[R, C]` as packed buffers.

    Args:
        layout: how the rows are stored.
        tensors: `weight_t5`, `weight_i4`, `weight_i8`, `weight_scale`, `weight_rows`, as many as the layout has; none
            where `hold` gives them later.
        dtype: float dtype of the values.
        shape: rows and columns.

    Attributes:
        value_dtype: of the values; follows `.to(dtype)`, while the float16 scales stay as they are.
        compute: "cached" keeps the dequantized matrix after its first use (speed and memory of a 16-bit model),
            "packed" dequantizes at every call (small and slow).
    """

    weight_scale: Tensor
    layout: Layout
    rows: int
    columns: int
    value_dtype: torch.dtype
    cached_weight: Tensor | None
    compute: Compute = "cached"
    _is_hf_initialized = True  # transformers has nothing to fill with random numbers

    def __init__(self, layout: Layout, tensors: Mapping[str, Tensor], dtype: torch.dtype, shape: tuple[int, int]):
        super().__init__()
        # `cached_weight` is no buffer, which Python would look for in three places at every call. All this goes past
        # `nn.Module.__setattr__`, which is slow, as a model has hundreds of these modules.
        own = {"layout": layout, "value_dtype": dtype, "rows": shape[0], "columns": shape[1], "cached_weight": None}
        self.__dict__.update(own)
        self.hold(tensors)

    def hold(self, tensors: Mapping[str, Tensor]) -> None:
        """Take packed tensors, by their names in the format, as buffers."""
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)

    @property
    def shapes(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Shapes and dtypes of the packed tensors, by their names in the format."""
        return self.layout.shapes(self.rows, self.columns)

    @property
    def packed_tensors(self) -> dict[str, Tensor]:
        """The buffers of the packed format, by their names in it."""
        return {name: getattr(self, name) for name in self.shapes}

    @property
    def weight(self) -> Tensor:
        """The dequantized matrix `[R, C]`; read-only."""
        if self.cached_weight is not None:
            return self.cached_weight
        # A tensor made in inference mode could not take part in autograd later.
        with torch.inference_mode(False), torch.no_grad():
            values = self.quantized().dequantize(self.value_dtype)
        if self.compute == "cached" and not values.is_meta:
            self.cached_weight = values
        return values

    def quantized(self) -> QuantizedTensor:
        """Codes and scales."""
        return unpack(self.layout, self.packed_tensors, self.columns)

    def extra_repr(self) -> str:
        return f"{self.rows}, {self.columns}, {'+'.join(self.layout.storage)}, group_size={self.layout.group_size}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        scale, self.cached_weight = self.weight_scale, None
        super()._apply(fn, recurse)
        if self.weight_scale.dtype != scale.dtype:
            self.weight_scale = scale.to(self.weight_scale.device)
        self.value_dtype = fn(torch.empty(0, dtype=self.value_dtype, device=scale.device)).dtype
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.cached_weight = None
        super()._load_from_state_dict(*args, **kwargs)


class TiedPackedWeight(nn.Module):
    """The base of layers whose weight is that of a packed one; they own no codes, so nothing is stored twice."""

    def __init__(self, owner: PackedWeight):
        super().__init__()
        # Inside a list, so that it is not registered as a child, yet follows deepcopy.
        self._owner = [owner]

    @property
    def owner(self) -> PackedWeight:
        return self._owner[0]

    @property
    def weight(self) -> Tensor:
        """The owner's dequantized matrix `[R, C]`; read-only."""
        return self.owner.weight


def select_rows(layout: Layout, tensors: Mapping[str, Tensor], index: Tensor, columns: int) -> QuantizedTensor:
    """Rows `index [N]` of a packed matrix, in that order, without unpacking the others."""
    chosen = {"weight_scale": tensors["weight_scale"][index]}
    if len(layout.qmax) == 1:
        name = f"weight_{layout.storage[0]}"
        return unpack(layout, chosen | {name: tensors[name][index]}, columns)
    wide = unpack_bits(tensors["weight_rows"], tensors["weight_scale"].shape[0])
    chosen["weight_rows"] = pack_bits(wide[index])
    if len(set(layout.storage)) == 1:
        name = f"weight_{layout.storage[0]}"
        return unpack(layout, chosen | {name: tensors[name][index]}, columns)
    # A row's place among the rows of its own kind.
    place = torch.where(wide, wide.cumsum(0), (~wide).cumsum(0))[index] - 1
    for storage, mask in zip(layout.storage, (~wide[index], wide[index]), strict=True):
        chosen[f"weight_{storage}"] = tensors[f"weight_{storage}"][place[mask]]
    return unpack(layout, chosen, columns)
