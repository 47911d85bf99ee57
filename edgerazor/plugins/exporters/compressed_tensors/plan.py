"""What each tensor becomes in a folder, or why it cannot, known before a byte is written."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from edgerazor.core.contracts import Checkpoint, ExportPlan, ModelFacts, NamedTensors, TensorRole
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.plugins.exporters.compressed_tensors.layout import (
    Scheme,
    declared_group,
    quantization_config,
    shared_group,
    width,
)
from edgerazor.plugins.exporters.model_facts import stated_facts
from edgerazor.plugins.exporters.params import CompressedTensorsParams
from edgerazor.plugins.exporters.tensor_checks import float_problem, scale_problem

# What vLLM and SGLang make one product of, which then has one scheme.
_JOINED = {"q": "qkv", "k": "qkv", "v": "qkv", "gate": "gate and up", "up": "gate and up"}


@dataclass(frozen=True)
class Matrix:
    """A quantized matrix of the checkpoint.

    Attributes:
        module: its name in the model.
        role: the part it plays.
        shape: rows and columns.
        scheme: how it is packed.
        packed: modules whose weight it is in the folder, packed: its own, that of a tied head, both or neither.
        rounded: it is stored under its own name in 16 bits.
        nominal_bits: mean over its rows, scales not counted.
    """

    module: str
    role: TensorRole
    shape: tuple[int, int]
    scheme: Scheme
    packed: tuple[str, ...]
    rounded: bool
    nominal_bits: float


@dataclass(kw_only=True)
class CompressedTensorsPlan(ExportPlan):
    """What `Planner` finds.

    Attributes:
        facts: of the model.
        dtype: of scales and, where it holds them, of all other tensors.
        matrices: by module.
        floats: `{tensor: dtype it is stored in}` of the tensors that are not quantized.
        plain: modules whose matrix is not quantized.
        untied: config.json says that the head is no longer the embedding.
        uneven: products that vLLM joins but of which only a part is quantized.
    """

    facts: ModelFacts
    dtype: torch.dtype
    matrices: dict[str, Matrix] = field(default_factory=dict)
    floats: dict[str, torch.dtype] = field(default_factory=dict)
    plain: dict[str, TensorRole] = field(default_factory=dict)
    untied: bool = False
    uneven: tuple[str, ...] = ()

    @property
    def schemes(self) -> dict[str, Scheme]:
        """By module of the folder; what is looked up has no activations."""
        found = {}
        for matrix in self.matrices.values():
            for module in matrix.packed:
                looked_up = module == matrix.module and matrix.role.kind == "embedding"
                found[module] = replace(matrix.scheme, activations=False) if looked_up else matrix.scheme
        return found

    def changes(self) -> dict[str, object]:
        """What config.json says otherwise than the checkpoint's."""
        rounded = [matrix.module for matrix in self.matrices.values() if matrix.rounded]
        changes: dict[str, object] = {
            "dtype": str(self.dtype).removeprefix("torch."),
            "quantization_config": quantization_config(self.schemes, [*self.plain, *rounded]),
        }
        return {**changes, "tie_word_embeddings": False} if self.untied else changes


def plan_export(
    checkpoint: Checkpoint, params: CompressedTensorsParams, tensors: NamedTensors
) -> CompressedTensorsPlan:
    """Choose schemes; arguments as for `Exporter.plan`. Problems are collected in the plan."""
    planner = Planner(checkpoint, params)
    for name, value in tensors:
        planner.add(name, value)
    return planner.finish()


class Planner:
    """Takes one tensor after the other, so that who reads them for another purpose need not read them twice.

    Args:
        checkpoint: of which they are.
        params: of the exporter.

    Raises:
        ExportError: nothing is known of the model.
    """

    def __init__(self, checkpoint: Checkpoint, params: CompressedTensorsParams):
        facts = stated_facts(checkpoint)
        self.checkpoint, self.params = checkpoint, params
        self.plan = CompressedTensorsPlan(facts=facts, dtype=getattr(torch, params.dtype))
        self.plan.problems += _unsupported(checkpoint, facts)
        self._heads: dict[str, list[str]] = {}
        for head, owner in checkpoint.tied.items():
            self._heads.setdefault(owner, []).append(head)
        trained = (checkpoint.recipe.get("quantization") or {}).get("activations")
        self._activations = params.activations == "recipe" and per_token(trained)

    def add(self, name: str, value: Tensor | QuantizedTensor) -> None:
        """Plan a tensor."""
        module = name.removesuffix(".weight")
        if isinstance(value, QuantizedTensor):
            self._add_matrix(module, self.checkpoint.role(name), value)
            return
        problem = float_problem(value)
        stored = value.dtype if problem else self._stored_dtype(value)
        if not problem and stored is None:
            problem = f"holds values beyond what {self.params.dtype} reaches; export with dtype=bfloat16"
        if problem:
            self.plan.problems.append(f"{name}: {problem}")
        self.plan.floats[name] = stored or value.dtype
        if value.ndim == 2 and name.endswith(".weight"):
            self.plan.plain[module] = self.checkpoint.role(name)

    def finish(self) -> CompressedTensorsPlan:
        """The plan, with one scheme for matrices that engines join."""
        sets: dict[tuple[int | None, str], list[Matrix]] = {}
        for matrix in self.plan.matrices.values():
            if matrix.role.kind in _JOINED:
                sets.setdefault((matrix.role.layer, _JOINED[matrix.role.kind]), []).append(matrix)
        for joined in sets.values():
            scheme = Scheme(
                max(matrix.scheme.bits for matrix in joined),
                shared_group((matrix.scheme.group_size for matrix in joined), joined[0].shape[1]),
                joined[0].scheme.activations,
            )
            for matrix in joined:
                self.plan.matrices[matrix.module] = replace(matrix, scheme=scheme)
        self.plan.uneven = tuple(
            f"{name} of layer {layer}"
            for layer, name in dict.fromkeys(
                (role.layer, _JOINED.get(role.kind, "")) for role in self.plan.plain.values()
            )
            if (layer, name) in sets
        )
        return self.plan

    def _add_matrix(self, module: str, role: TensorRole, value: QuantizedTensor) -> None:
        if value.codes.ndim != 2:
            self.plan.problems.append(f"{module}: holds the matrices of several experts; they are not covered")
            return
        if problem := scale_problem(value) or self._range_problem(value):
            self.plan.problems.append(f"{module}: {problem}")
            return
        rows, columns = value.codes.shape
        packed, rounded = self._places(module, role)
        bits = max(width(value.codes), 2 if self.params.profile == "w2" else 4)
        scheme = Scheme(bits, declared_group(value.group_size, columns), self._activations)
        nominal = value.bits_per_weight() - 16 / value.group_size
        self.plan.matrices[module] = Matrix(module, role, (rows, columns), scheme, packed, rounded, nominal)

    def _range_problem(self, value: QuantizedTensor) -> str:
        """Why the folder's dtype holds scales or weights of a matrix not; "" if it does."""
        if not _holds(value.scale, self.plan.dtype):
            return (
                "bfloat16 does not hold all of its scales; export with dtype=float16, or train with scale_dtype: "
                "float16_bfloat16"
            )
        largest = float(value.scale.abs().max()) * max(abs(int(code)) for code in torch.aminmax(value.codes))
        reach = torch.finfo(self.plan.dtype).max
        return f"weights may be as large as {largest:.3g}; float16 reaches {reach:.0f}" if largest > reach else ""

    def _places(self, module: str, role: TensorRole) -> tuple[tuple[str, ...], bool]:
        """Modules that a matrix is packed for, and whether it is stored in 16 bits as well."""
        heads = tuple(self._heads.get(module, ())) if self.params.untie else ()
        self.plan.untied |= bool(heads)
        if role.kind != "embedding":
            return (module, *heads), False
        return (heads, True) if self.params.embedding == "keep" else ((module, *heads), False)

    def _stored_dtype(self, value: Tensor) -> torch.dtype | None:
        """The dtype of the folder if it holds the tensor exactly, else the tensor's own; None if it would overflow."""
        if _holds(value, self.plan.dtype):
            return self.plan.dtype
        return value.dtype if bool(torch.isfinite(value.to(self.plan.dtype)).all()) else None


def per_token(trained: object) -> bool:
    """Whether activations were trained as int8 with one scale for each token."""
    if not isinstance(trained, dict):
        return False
    whole = trained.get("group_size") is None and trained.get("symmetric", True)
    return bool(trained.get("name") == "int" and trained.get("bits") == 8 and whole)


def _holds(value: Tensor, dtype: torch.dtype) -> bool:
    return torch.equal(value.to(dtype).float(), value.float())


def _unsupported(checkpoint: Checkpoint, facts: ModelFacts) -> Iterator[str]:
    """What no engine would load."""
    model_type = checkpoint.config.get("model_type")
    if model_type not in CONFIG_MAPPING_NAMES:
        yield f"model_type '{model_type}': Transformers and vLLM have no classes of their own for it"
    if facts.experts:
        yield f"mixtures of experts are not covered; every layer has {facts.experts}"
    if facts.towers:
        yield "models with vision or audio towers are not covered; their text model alone would be"
