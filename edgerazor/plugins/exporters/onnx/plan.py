"""What each tensor becomes in the graph, or why it cannot, known before a byte is written."""

from dataclasses import dataclass, field
from typing import Any

import torch

from edgerazor.core.contracts import Checkpoint, ExportPlan, NamedTensors
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import ExportError
from edgerazor.plugins.exporters.onnx.row_groups import RowGroup, split_rows
from edgerazor.plugins.exporters.params import ONNXParams

ROPE_TYPES = ("default", "linear", "yarn", "llama3")
_MOST_CONTEXT = 8192


@dataclass(frozen=True)
class Matrix:
    """A quantized matrix.

    Attributes:
        module: its name in the model.
        kind: of its role: "q", "down", "embedding", "head" …
        row_groups: its rows, by width.
        weights: codes in it.
        nominal_bits: mean over its rows, scales not counted.
        mixed_inside: widths mix inside rows, which were widened.
    """

    module: str
    kind: str
    row_groups: tuple[RowGroup, ...]
    weights: int
    nominal_bits: float
    mixed_inside: bool

    @property
    def bytes(self) -> int:
        return sum(row_group.bytes for row_group in self.row_groups)


@dataclass(kw_only=True)
class ONNXPlan(ExportPlan):
    """What `plan_export` finds: operands of the matrices, and what else the graph needs to know."""

    matrices: dict[str, Matrix] = field(default_factory=dict)
    floats: list[str] = field(default_factory=list)
    context_length: int = 0
    tied: bool = False
    activation_group: int | None = None


def plan_export(checkpoint: Checkpoint, params: ONNXParams, tensors: NamedTensors) -> ONNXPlan:
    """Choose operators and blocks; arguments as for `Exporter.plan`. Problems are collected in the plan."""
    plan, config = ONNXPlan(), checkpoint.config
    activations = (checkpoint.recipe.get("quantization") or {}).get("activations") or {}
    plan.activation_group = activations.get("group_size")
    plan.tied = bool(config.get("tie_word_embeddings"))
    plan.context_length = _context_length(config, params, plan.problems)
    plan.problems += _unsupported(config, plan.context_length)
    for name, value in tensors:
        if isinstance(value, QuantizedTensor):
            _add_matrix(plan, checkpoint, params, name, value)
        else:
            _add_float(plan, name, value)
    return plan


def _add_matrix(plan: ONNXPlan, checkpoint: Checkpoint, params: ONNXParams, name: str, value: QuantizedTensor) -> None:
    module, role = name.removesuffix(".weight"), checkpoint.role(name)
    if value.codes.ndim != 2 or role.parts:
        plan.problems.append(f"{module}: is a fused or stacked matrix; only plain ones can be exported")
        return
    problem = _scale_problem(value)
    if problem:
        plan.problems.append(f"{module}: {problem}")
        return
    try:
        row_groups = _split(value, params, plan.activation_group, table=role.kind == "embedding")
    except ExportError as error:
        plan.problems.append(f"{module}: {error}")
        return
    nominal = value.bits_per_weight() - 16 / value.group_size
    plan.matrices[module] = Matrix(
        module, role.kind, tuple(row_groups), value.codes.numel(), nominal, value.qmax.ndim == 2
    )


def _split(value: QuantizedTensor, params: ONNXParams, activation_group: int | None, *, table: bool) -> list[RowGroup]:
    """The row groups; rows of an embedding are looked up, so those of two widths follow a period or get one width."""
    bits = 4 if params.ternary_storage == "4bit" else 2
    row_groups = split_rows(value, ternary_bits=bits, activation_group=activation_group)
    if row_groups[0].rows.period == 0 and table:
        return split_rows(value, ternary_bits=bits, activation_group=activation_group, one_width=True)
    return row_groups


def _add_float(plan: ONNXPlan, name: str, value: torch.Tensor) -> None:
    if value.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        plan.problems.append(f"{name}: is {str(value.dtype).removeprefix('torch.')}; expected a float")
    elif not bool(torch.isfinite(value).all()):
        plan.problems.append(f"{name}: holds values that are not finite")
    plan.floats.append(name)


def _scale_problem(value: QuantizedTensor) -> str:
    if value.scale.dtype != torch.float16:
        return f"scales are {str(value.scale.dtype).removeprefix('torch.')}; train with scale_dtype: float16"
    scale = value.scale.float()
    bad = int((~torch.isfinite(scale)).sum())
    if bad:
        return f"{bad} scales are not finite"
    groups = value.codes.reshape(*scale.shape, -1)
    empty = int(((scale == 0) & (groups != 0).any(-1)).sum())
    return f"{empty} scales are 0 with codes that are not" if empty else ""


def _context_length(config: Any, params: ONNXParams, problems: list[str]) -> int:
    most = config.get("max_position_embeddings")
    if not isinstance(most, int):
        problems.append("config.json: says no max_position_embeddings")
        return 0
    if params.context_length is not None and params.context_length > most:
        problems.append(f"context_length {params.context_length} exceeds the model's {most} positions")
    return params.context_length or min(most, _MOST_CONTEXT)


def _unsupported(config: Any, context_length: int) -> list[str]:
    """Attention variants that the graph has no operator for."""
    problems = []
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if "rope_theta" not in rope and any(isinstance(value, dict) for value in rope.values()):
        problems.append("config.json: layers with rotary tables of their own are not covered")
    kind = rope.get("rope_type", "default")
    if kind not in ROPE_TYPES:
        problems.append(f"rope_type '{kind}' has no fixed table; known: {', '.join(ROPE_TYPES)}")
    if rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0)) != 1.0:
        problems.append("config.json: partial_rotary_factor: only heads that are rotated whole are covered")
    if "sliding_attention" in (config.get("layer_types") or ()):
        problems.append("config.json: layer_types: sliding_attention is not covered; only full attention is")
    window = config.get("sliding_window")
    if window and "layer_types" not in config and config.get("use_sliding_window", True) and window < context_length:
        problems.append(f"config.json: sliding_window {window} is not covered; set context_length to {window} or less")
    if config.get("layer_sharing"):
        problems.append("config.json: layer_sharing is true; a graph would hold every shared layer twice")
    if config.get("num_experts") or config.get("num_local_experts"):
        problems.append("config.json: mixtures of experts are not covered")
    if config.get("vision_config") or config.get("thinker_config") or config.get("audio_config"):
        problems.append(
            "config.json: models with vision or audio towers are not covered; their text model alone would be"
        )
    return problems
