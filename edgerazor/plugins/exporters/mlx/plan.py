"""How every tensor is stored, and the configuration that mlx_lm is to read, known before a byte is written."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch

from edgerazor.core.contracts import Checkpoint, ExportPlan, ModelFacts, NamedTensors
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import ExportError
from edgerazor.plugins.exporters.hugging_face import exported_config
from edgerazor.plugins.exporters.mlx.engine import expected_shapes
from edgerazor.plugins.exporters.mlx.families import MODEL_CLASSES, describe_model
from edgerazor.plugins.exporters.mlx.layout import Affine, choose_affine
from edgerazor.plugins.exporters.model_facts import stated_facts
from edgerazor.plugins.exporters.params import MLXParams
from edgerazor.plugins.exporters.tensor_checks import float_problem, scale_problem

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Matrix:
    """A quantized matrix.

    Attributes:
        module: its name in the model.
        kind: of its role: "q", "down", "embedding", "head" …
        shape: rows and columns.
        affine: how it is stored.
        nominal_bits: mean over its rows, scales not counted.
        mixed: rows of several widths are in it.
    """

    module: str
    kind: str
    shape: tuple[int, int]
    affine: Affine
    nominal_bits: float
    mixed: bool

    @property
    def weights(self) -> int:
        return self.shape[0] * self.shape[1]

    def bytes(self, scale_bytes: int) -> int:
        """Words, scales and biases together, by the bytes of a scale."""
        groups = self.weights // self.affine.group_size
        return self.weights * self.affine.bits // 8 + 2 * groups * scale_bytes


@dataclass(kw_only=True)
class MLXPlan(ExportPlan):
    """What `plan_export` finds.

    Attributes:
        facts: of the model.
        dtype: of scales, biases and all other tensors.
        matrices: by the name of their tensor.
        floats: shape of every other tensor, by its name.
        config: keys of config.json that are not those of the checkpoint.
    """

    facts: ModelFacts
    dtype: torch.dtype
    matrices: dict[str, Matrix] = field(default_factory=dict)
    floats: dict[str, tuple[int, ...]] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)


def plan_export(checkpoint: Checkpoint, params: MLXParams, tensors: NamedTensors) -> MLXPlan:
    """Choose bits and groups; arguments as for `Exporter.plan`. Problems are collected in the plan.

    Raises:
        ExportError: mlx_lm has no class for the model.
    """
    facts = stated_facts(checkpoint)
    name = facts.mlx or str(checkpoint.config.get("model_type"))
    if name not in MODEL_CLASSES:
        known = ", ".join(MODEL_CLASSES)
        raise ExportError(f"config.json: model_type '{name}': no class of mlx_lm is known for it; known: {known}")
    plan = MLXPlan(facts=facts, dtype=DTYPES[params.dtype])
    keys, plan.problems = describe_model(facts, name)
    for tensor_name, value in tensors:
        if isinstance(value, QuantizedTensor):
            _add_matrix(plan, checkpoint, tensor_name, value)
        else:
            _add_float(plan, tensor_name, value)
    # Rotations are stated by the keys of mlx_lm alone.
    plan.config = {**keys, "model_type": name, "dtype": params.dtype, "rope_parameters": None}
    if not plan.problems:
        plan.problems += _other_parameters(plan, checkpoint, name)
    quantization = _quantization(plan)
    plan.config |= {"quantization": quantization, "quantization_config": quantization}
    return plan


def _add_matrix(plan: MLXPlan, checkpoint: Checkpoint, name: str, value: QuantizedTensor) -> None:
    module = name.removesuffix(".weight")
    problem = _scale_problem(value, plan.dtype)
    if value.codes.ndim != 2:
        problem = "holds the matrices of several experts; mixtures of experts are not covered"
    if problem:
        plan.problems.append(f"{module}: {problem}")
        return
    try:
        affine = choose_affine(value)
    except ExportError as error:
        plan.problems.append(f"{module}: {error}")
        return
    largest = float(value.scale.abs().max()) * affine.offset
    if largest > torch.finfo(plan.dtype).max:
        plan.problems.append(f"{module}: a bias of {largest:g} does not fit {_word(plan.dtype)}; set dtype to float32")
        return
    rows, columns = value.codes.shape
    nominal = value.bits_per_weight() - 16 / value.group_size
    mixed = len(value.qmax.unique()) > 1
    plan.matrices[name] = Matrix(module, checkpoint.role(name).kind, (rows, columns), affine, nominal, mixed)


def _add_float(plan: MLXPlan, name: str, value: torch.Tensor) -> None:
    if problem := float_problem(value):
        plan.problems.append(f"{name}: {problem}")
    elif inexact := _inexact(value, plan.dtype):
        plan.problems.append(f"{name}: {inexact} values are no {_word(plan.dtype)} numbers; set dtype to float32")
    plan.floats[name] = tuple(value.shape)


def _scale_problem(value: QuantizedTensor, dtype: torch.dtype) -> str:
    """Products of codes and biases are exact in float32 where scales are float16 numbers."""
    if problem := scale_problem(value):
        return problem
    if inexact := _inexact(value.scale, dtype):
        other = " or train with scale_dtype: float16_bfloat16" if dtype == torch.bfloat16 else ""
        return f"{inexact} scales are no {_word(dtype)} numbers; set dtype to float32{other}"
    return ""


def _inexact(value: torch.Tensor, dtype: torch.dtype) -> int:
    """How many numbers `dtype` cannot hold."""
    return int((value.to(dtype).to(value.dtype) != value).sum())


def _other_parameters(plan: MLXPlan, checkpoint: Checkpoint, name: str) -> list[str]:
    """Parameters that the class has and the checkpoint lacks, the other way round, and those of another shape."""
    stored = {tensor: matrix.shape for tensor, matrix in plan.matrices.items()} | plan.floats
    expected, read = expected_shapes(exported_config(checkpoint, plan.config), stored)
    problems = [f"{tensor}: mlx_lm's {name} reads no such tensor" for tensor in stored if tensor not in read]
    for tensor in sorted(read | set(expected)):
        if tensor not in expected:
            problems.append(f"{tensor}: mlx_lm's {name} has no such tensor")
        elif tensor not in read:
            problems.append(f"{tensor}: mlx_lm's {name} needs it, and the checkpoint has none")
        elif stored[tensor] != expected[tensor]:
            problems.append(f"{tensor}: is {list(stored[tensor])}, mlx_lm's {name} has {list(expected[tensor])}")
    return problems


def _quantization(plan: MLXPlan) -> dict[str, Any]:
    """What mlx_lm reads: the settings of most matrices, then those of each; `false` for one that is not quantized."""
    settings = {
        matrix.module: {"group_size": matrix.affine.group_size, "bits": matrix.affine.bits}
        for matrix in plan.matrices.values()
    }
    counted = Counter(tuple(entry.values()) for entry in settings.values())
    group_size, bits = counted.most_common(1)[0][0] if counted else (64, 4)
    left = {name.removesuffix(".weight"): False for name, shape in plan.floats.items() if len(shape) == 2}
    return {"group_size": group_size, "bits": bits, "mode": "affine", **settings, **left}


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
