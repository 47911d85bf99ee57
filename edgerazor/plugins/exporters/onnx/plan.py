"""What each tensor becomes in the graph, or why it cannot, known before a byte is written."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from edgerazor.core.contracts import Checkpoint, ExportPlan, ModelFacts, NamedTensors
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import ExportError
from edgerazor.plugins.exporters.model_facts import distinct_ropes, stated_facts
from edgerazor.plugins.exporters.onnx.empty_model import convolutions
from edgerazor.plugins.exporters.onnx.row_groups import RowGroup, split_rows
from edgerazor.plugins.exporters.params import ONNXParams
from edgerazor.plugins.exporters.tensor_checks import float_problem, scale_problem

ROPE_TYPES = ("default", "linear", "yarn", "llama3", "longrope")
_MULTIPLE = 16
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
        shape: of the weight of a convolution; None of a matrix that is multiplied or looked up.
    """

    module: str
    kind: str
    row_groups: tuple[RowGroup, ...]
    weights: int
    nominal_bits: float
    mixed_inside: bool
    shape: tuple[int, ...] | None = None

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
    convolutions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def multiplied(self) -> list[Matrix]:
        """The matrices but those of convolutions."""
        return [matrix for matrix in self.matrices.values() if matrix.shape is None]


def plan_export(checkpoint: Checkpoint, params: ONNXParams, tensors: NamedTensors) -> ONNXPlan:
    """Choose operators and blocks; arguments as for `Exporter.plan`. Problems are collected in the plan."""
    facts = stated_facts(checkpoint, images=True)
    plan = ONNXPlan(facts=facts)
    activations = (checkpoint.recipe.get("quantization") or {}).get("activations") or {}
    plan.activation_group = activations.get("group_size")
    if facts.image:
        plan.problems += _of_texts(params)
        plan.convolutions = convolutions(checkpoint)
    else:
        plan.context_length = _context_length(facts, params, plan.problems)
        plan.problems += _unsupported(facts)
        plan.problems += [] if params.portable else _unfit_heads(facts)
    for name, value in tensors:
        if isinstance(value, QuantizedTensor):
            _add_matrix(plan, checkpoint, params, name, value)
        else:
            _add_float(plan, name, value)
    return plan


def _add_matrix(plan: ONNXPlan, checkpoint: Checkpoint, params: ONNXParams, name: str, value: QuantizedTensor) -> None:
    module, role = name.removesuffix(".weight"), checkpoint.role(name)
    if value.codes.ndim != 2 or (plan.facts.experts and role.kind in plan.facts.fused):
        plan.problems.append(f"{module}: holds the matrices of several experts; mixtures of experts are not covered")
        return
    problem = scale_problem(value)
    if problem:
        plan.problems.append(f"{module}: {problem}")
        return
    shape = plan.convolutions.get(module)
    try:
        row_groups = _split(
            value, params, plan.activation_group, table=role.kind == "embedding", any_group=shape is not None
        )
    except ExportError as error:
        plan.problems.append(f"{module}: {error}")
        return
    nominal = value.bits_per_weight() - 16 / value.group_size
    plan.matrices[module] = Matrix(
        module, role.kind, tuple(row_groups), value.codes.numel(), nominal, value.qmax.ndim == 2, shape
    )


def _split(
    value: QuantizedTensor, params: ONNXParams, activation_group: int | None, *, table: bool, any_group: bool
) -> list[RowGroup]:
    """The row groups; rows of an embedding are looked up, so those of two widths follow a period or get one width."""
    bits = 4 if params.ternary_storage == "4bit" else 2
    row_groups = split_rows(value, ternary_bits=bits, activation_group=activation_group, any_group=any_group)
    if row_groups[0].rows.period == 0 and table:
        return split_rows(value, ternary_bits=bits, activation_group=activation_group, one_width=True)
    return row_groups


def _add_float(plan: ONNXPlan, name: str, value: torch.Tensor) -> None:
    if plan.facts.image and is_counter(name):
        return
    if problem := float_problem(value):
        plan.problems.append(f"{name}: {problem}")
    plan.floats.append(name)


def is_counter(name: str) -> bool:
    """Whether a tensor counts the batches that a batch norm has seen, which a finished model has no use for."""
    return name.endswith(".num_batches_tracked")


def _of_texts(params: ONNXParams) -> list[str]:
    """Parameters that mean nothing for an image classifier."""
    problems = ["logits last: a classifier has no positions; leave it out"] if params.logits == "last" else []
    if params.context_length is not None:
        problems.append(f"context_length {params.context_length}: a classifier reads images; leave it out")
    return problems


def _context_length(facts: ModelFacts, params: ONNXParams, problems: list[str]) -> int:
    asked = params.context_length
    if asked is not None and asked > facts.context:
        problems.append(f"context_length {asked} exceeds the model's {facts.context} positions")
    same_rotation = positions_of_one_rotation(facts)
    if asked is not None and same_rotation < asked <= facts.context:
        problems.append(
            f"context_length {asked}: longrope turns every position otherwise in texts longer than {same_rotation}, "
            f"but keys are turned when they enter the cache; set context_length to {same_rotation} or less"
        )
    return asked or min(facts.context, same_rotation, _MOST_CONTEXT)


def positions_of_one_rotation(facts: ModelFacts) -> int:
    """Longest text in which the rotation of a position does not depend on the length of the text."""
    longropes = [rope for rope in distinct_ropes(facts.ropes) if rope.kind == "longrope"]
    original = (rope.scaling.get("original_max_position_embeddings") for rope in longropes)
    return min((int(positions) for positions in original if positions), default=facts.context)


def _unsupported(facts: ModelFacts) -> list[str]:
    """What the graph has no operator for."""
    kinds = dict.fromkeys(rope.kind for rope in distinct_ropes(facts.ropes) if rope.kind not in ROPE_TYPES)
    problems = [f"rope_type '{kind}' has no fixed table; known: {', '.join(ROPE_TYPES)}" for kind in kinds]
    if facts.attention_softcap is not None:
        problems.append(f"attention_softcap {facts.attention_softcap} is not covered")
    if facts.repeats != 1:
        problems.append(f"every layer runs {facts.repeats} times; a graph would hold every shared layer more than once")
    if facts.experts:
        problems.append(f"mixtures of experts are not covered; every layer has {facts.experts}")
    if facts.towers:
        problems.append("models with vision or audio towers are not covered; their text model alone would be")
    return problems


def _unfit_heads(facts: ModelFacts) -> list[str]:
    """Heads that ONNX Runtime's attention operator cannot turn."""
    turned = dict.fromkeys(int(facts.head_dim * rope.partial) for rope in distinct_ropes(facts.ropes))
    parts = {columns: "" if columns == facts.head_dim else f", {columns} columns of which turn" for columns in turned}
    return [
        f"head_dim {facts.head_dim}{part}: ONNX Runtime's GroupQueryAttention takes multiples of {_MULTIPLE}; "
        "set portable to true"
        for columns, part in parts.items()
        if columns % _MULTIPLE
    ]
