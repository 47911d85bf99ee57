"""What each tensor becomes in the graph, or why it cannot, known before a byte is written."""

from dataclasses import dataclass, field

import torch

from edgerazor.core.contracts import Checkpoint, ExportPlan, ModelFacts, NamedTensors
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import ExportError
from edgerazor.plugins.exporters.model_facts import name_layers, short_windows, stated_facts
from edgerazor.plugins.exporters.onnx.row_groups import RowGroup, split_rows
from edgerazor.plugins.exporters.params import ONNXParams

ROPE_TYPES = ("default", "linear", "yarn", "llama3")
_HEAD_MULTIPLE = 16
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

    facts: ModelFacts
    matrices: dict[str, Matrix] = field(default_factory=dict)
    floats: list[str] = field(default_factory=list)
    context_length: int = 0
    activation_group: int | None = None


def plan_export(checkpoint: Checkpoint, params: ONNXParams, tensors: NamedTensors) -> ONNXPlan:
    """Choose operators and blocks; arguments as for `Exporter.plan`. Problems are collected in the plan."""
    facts = stated_facts(checkpoint)
    plan = ONNXPlan(facts=facts)
    activations = (checkpoint.recipe.get("quantization") or {}).get("activations") or {}
    plan.activation_group = activations.get("group_size")
    plan.context_length = _context_length(facts, params, plan.problems)
    plan.problems += _unsupported(facts, plan.context_length)
    if facts.head_dim % _HEAD_MULTIPLE and not params.portable:
        plan.problems.append(
            f"head_dim {facts.head_dim}: ONNX Runtime's GroupQueryAttention takes multiples of {_HEAD_MULTIPLE}; "
            "set portable to true"
        )
    for name, value in tensors:
        if isinstance(value, QuantizedTensor):
            _add_matrix(plan, checkpoint, params, name, value)
        else:
            _add_float(plan, name, value)
    return plan


def _add_matrix(plan: ONNXPlan, checkpoint: Checkpoint, params: ONNXParams, name: str, value: QuantizedTensor) -> None:
    module, role = name.removesuffix(".weight"), checkpoint.role(name)
    if value.codes.ndim != 2 or role.kind in plan.facts.fused:
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


def _context_length(facts: ModelFacts, params: ONNXParams, problems: list[str]) -> int:
    if params.context_length is not None and params.context_length > facts.context:
        problems.append(f"context_length {params.context_length} exceeds the model's {facts.context} positions")
    return params.context_length or min(facts.context, _MOST_CONTEXT)


def _unsupported(facts: ModelFacts, context_length: int) -> list[str]:
    """Attention variants that the graph has no operator for."""
    problems = _unsupported_positions(facts)
    for window, layers in short_windows(facts, context_length).items():
        cure = f"set context_length to {window} or less"
        problems.append(f"window {window} on {name_layers(layers)}: sliding windows are not covered; {cure}")
    if facts.attention_softcap is not None:
        problems.append(f"attention_softcap {facts.attention_softcap} is not covered")
    if facts.repeats != 1:
        problems.append(f"every layer runs {facts.repeats} times; a graph would hold every shared layer more than once")
    if facts.experts:
        problems.append(f"mixtures of experts are not covered; every layer has {facts.experts}")
    if facts.towers:
        problems.append("models with vision or audio towers are not covered; their text model alone would be")
    return problems


def _unsupported_positions(facts: ModelFacts) -> list[str]:
    problems = []
    still = [layer for layer, rope in enumerate(facts.ropes) if rope is None]
    if still:
        problems.append(f"no rotary embedding on {name_layers(still)}; only models whose layers all rotate are covered")
    elif facts.rope is None:
        problems.append("layers with rotary tables of their own are not covered")
    for kind in dict.fromkeys(rope.kind for rope in facts.ropes if rope is not None and rope.kind not in ROPE_TYPES):
        problems.append(f"rope_type '{kind}' has no fixed table; known: {', '.join(ROPE_TYPES)}")
    for partial in dict.fromkeys(rope.partial for rope in facts.ropes if rope is not None and rope.partial != 1.0):
        problems.append(f"partial_rotary_factor {partial}: only heads that are rotated whole are covered")
    return problems
