"""The graph: transformers' own model with placeholders in it, traced once for any batch, length and cache."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn

from edgerazor.core.contracts import ModelFacts
from edgerazor.core.layers.attention import attention_modules
from edgerazor.plugins.exporters.model_facts import short_windows
from edgerazor.plugins.exporters.onnx.attention import FusedAttention, StandardAttention
from edgerazor.plugins.exporters.onnx.rotary import Tables, rotary_tables, table_names, turned_by_operator
from edgerazor.plugins.exporters.onnx.tracer import axis_of, traced

# Pairwise different and above 1, which tracing would take for constants.
BATCH, LENGTH, PAST = 2, 3, 5


def trace_model(model: Any, facts: ModelFacts, context_length: int, *, last: bool, portable: bool = False) -> ir.Model:
    """The traced graph of `build_model`; its initializers bear the names of the tensors in the model.

    Args:
        model: with placeholders.
        facts: of the model, for the shape of its cache and the windows of its layers.
        context_length: rows of the rotary tables.
        last: compute logits of the last position only.
        portable: attention and rotary embedding by standard operators.

    Raises:
        ExportError: the model does what cannot be traced.
    """
    windows = short_windows(facts, context_length)
    wrapper = (_PortableWrapper if portable else _Wrapper)(model, context_length, windows, last=last)
    past = [torch.zeros(BATCH, facts.kv_heads, PAST, facts.head_dim) for _ in range(2 * facts.layers)]
    ids = torch.ones(BATCH, LENGTH, dtype=torch.long)
    mask = torch.ones(BATCH, PAST + LENGTH, dtype=torch.long)
    names = [f"{layer}.{part}" for layer in range(facts.layers) for part in ("key", "value")]
    any_size = torch.export.Dim.DYNAMIC
    both = {0: any_size, 1: any_size}
    free = (both, both, [{0: any_size, 2: any_size} for _ in past])
    inputs = ["input_ids", "attention_mask", *(f"past_key_values.{name}" for name in names)]
    with wrapper.positions():
        model = traced(wrapper, (ids, mask, past), free, inputs, ["logits", *(f"present.{name}" for name in names)])
    _name_axes(model.graph, last=last)
    return model


class _Wrapper(nn.Module):
    """Inputs and outputs as onnxruntime-genai names them, around a transformers model."""

    def __init__(self, model: Any, positions: int, windows: Mapping[int, int], *, last: bool):
        super().__init__()
        self.model, self.windows, self.last = model, windows, last
        self.turning: list[Tables] = []
        self.register_tables(positions)

    def register_tables(self, positions: int) -> None:
        """Buffers for those that the operator turns by."""
        for kind, tables in rotary_tables(self.model, positions).items():
            for name, table in zip(table_names(kind), tables, strict=True):
                self.register_buffer(name, table)

    def positions(self) -> AbstractContextManager[None]:
        """Within the block the operator turns queries and keys, not the model."""

        def registered(kind: str) -> Tables:
            cos, sin = (getattr(self, name) for name in table_names(kind))
            return cos, sin

        return turned_by_operator(self.model, registered, self.turning)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, past: list[Tensor]) -> tuple[Tensor, ...]:
        lengths = (attention_mask.sum(dim=1) - 1).to(torch.int32)
        total = torch.scalar_tensor(attention_mask.shape[1], dtype=torch.int32)
        attention = FusedAttention(tuple(past), lengths, total, windows=self.windows, turning=self.turning)
        return self.run(attention, input_ids)

    def run(self, attention: Any, input_ids: Tensor, **positions: Tensor) -> tuple[Tensor, ...]:
        """Logits, and keys and values of every layer."""
        for _, module in attention_modules(self.model):
            module.onnx_attention = attention
        keep = 1 if self.last else 0
        output = self.model(input_ids=input_ids, use_cache=False, logits_to_keep=keep, **positions)
        present = [part for index in sorted(attention.present) for part in attention.present[index]]
        return output.logits, *present


class _PortableWrapper(_Wrapper):
    """The same with positions and mask as tensors; the model rotates its queries and keys itself."""

    def register_tables(self, positions: int) -> None:
        """None: the model computes angles from positions."""

    def positions(self) -> AbstractContextManager[None]:
        """The model turns by itself."""
        return nullcontext()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, past: list[Tensor]) -> tuple[Tensor, ...]:
        start, total = past[0].shape[2], past[0].shape[2] + input_ids.shape[1]
        positions = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)[:, start:]
        rows, columns = torch.arange(start, total)[:, None], torch.arange(total)[None]
        allowed = (columns <= rows)[None, None] & (attention_mask[:, None, None] > 0)
        by_window: dict[int | None, Tensor] = {None: allowed}
        for window in dict.fromkeys(self.windows.values()):
            by_window[window] = allowed & (rows - columns < window)[None, None]
        attention = StandardAttention(tuple(past), by_window, windows=self.windows)
        return self.run(attention, input_ids, position_ids=positions)


def _name_axes(graph: ir.Graph, *, last: bool) -> None:
    """Names of the free axes, for whoever reads the file."""
    graph.inputs[0].shape, graph.inputs[1].shape = ir.Shape(["batch", "length"]), ir.Shape(["batch", "total"])
    graph.outputs[0].shape = ir.Shape(["batch", 1 if last else "length", axis_of(graph.outputs[0], 2)])
    for values, length in ((graph.inputs[2:], "past"), (graph.outputs[1:], "total")):
        for value in values:
            value.shape = ir.Shape(["batch", axis_of(value, 1), length, axis_of(value, 3)])
