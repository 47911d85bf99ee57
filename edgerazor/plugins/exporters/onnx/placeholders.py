"""Modules that stand in for quantized ones while the graph is traced. What they emit is a placeholder that names the
matrix; `lowering` puts the operators in its place, once it is seen which matrices share an input."""

from typing import Any

import torch
from torch import Tensor, nn

from edgerazor.core.tensor import QuantizedTensor
from edgerazor.plugins.exporters.onnx.plan import Matrix
from edgerazor.plugins.exporters.onnx.row_groups import RowGroup, pack_rows

DOMAIN, PRODUCT, LOOK_UP = "edgerazor", "Product", "LookUp"
symbolic: Any = torch.onnx.ops.symbolic


class PackedRows(nn.Module):
    """Packed codes, and scales as they are, float16 and one per group."""

    codes: Tensor
    scales: Tensor

    def __init__(self, row_group: RowGroup, tensor: QuantizedTensor):
        super().__init__()
        codes, scales = pack_rows(tensor, row_group)
        self.register_buffer("codes", torch.from_numpy(codes))
        self.register_buffer("scales", torch.from_numpy(scales))
        self.row_group = row_group


class PackedMatrix(nn.Module):
    """A matrix by groups of rows of one width.

    Args:
        matrix: as planned.
        tensor: codes and scales.
    """

    def __init__(self, matrix: Matrix, tensor: QuantizedTensor):
        super().__init__()
        self.matrix = matrix
        # The names of initializers come from here: in every file so far they are "parts.0.codes" and so on.
        self.parts = nn.ModuleList(PackedRows(row_group, tensor) for row_group in matrix.row_groups)
        self.rows, self.columns = tensor.codes.shape

    @property
    def tensors(self) -> list[Tensor]:
        return [tensor for rows in self.parts for tensor in (rows.codes, rows.scales)]  # type: ignore[misc]


class PlaceholderLinear(nn.Module):
    """A linear layer, or the head that is tied to a table of embeddings."""

    bias: Tensor | None

    def __init__(self, weight: PackedMatrix, bias: Tensor | None):
        super().__init__()
        self.weight = weight
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        inputs, attributes = (x, *self.weight.tensors), {"module": self.weight.matrix.module}
        shape = (*x.shape[:-1], self.weight.rows)
        y: Tensor = symbolic(f"{DOMAIN}::{PRODUCT}", inputs, attributes, dtype=x.dtype, shape=shape, version=1)
        return y if self.bias is None else y + self.bias


class PlaceholderEmbedding(nn.Module):
    """A table of embeddings that stays packed, and what looked-up rows are multiplied by."""

    factor: Tensor | None

    def __init__(self, weight: PackedMatrix, factor: Tensor | None = None):
        super().__init__()
        self.weight = weight
        self.register_buffer("factor", factor)

    def forward(self, ids: Tensor) -> Tensor:
        rows = self._rows(ids)
        return rows if self.factor is None else rows * self.factor

    def _rows(self, ids: Tensor) -> Tensor:
        if len(self.weight.parts) == 1:
            return self._look_up(ids, 0)
        # Every period-th row from the first is wide.
        period = self.weight.matrix.row_groups[0].rows.period
        quotient = torch.div(ids, period, rounding_mode="floor")
        among_narrow = torch.clamp(ids - quotient - 1, min=0)
        is_wide = torch.eq(ids, quotient * period).unsqueeze(-1)
        return torch.where(is_wide, self._look_up(quotient, 0), self._look_up(among_narrow, 1))

    def _look_up(self, ids: Tensor, index: int) -> Tensor:
        rows: Any = self.weight.parts[index]
        inputs, attributes = (ids, rows.codes, rows.scales), {"module": self.weight.matrix.module, "row_group": index}
        shape = (*ids.shape, self.weight.columns)
        values: Tensor = symbolic(
            f"{DOMAIN}::{LOOK_UP}", inputs, attributes, dtype=torch.float32, shape=shape, version=1
        )
        return values


class OperatorNorm(nn.Module):
    """RMS normalization over the last axis as one operator.

    Args:
        weight: as the checkpoint has it.
        epsilon: added to the mean square.
        offset: added to the weight, in the graph, so that the stored one can be compared.
    """

    weight: Tensor

    def __init__(self, weight: Tensor, epsilon: float, offset: float = 0.0):
        super().__init__()
        self.register_buffer("weight", weight)
        self.epsilon, self.offset = epsilon, offset

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight + self.offset if self.offset else self.weight
        attributes = {"axis": -1, "epsilon": self.epsilon, "stash_type": 1}
        result: Tensor = symbolic(
            "::RMSNormalization", (x, weight), attributes, dtype=x.dtype, shape=x.shape, version=23
        )
        return result
