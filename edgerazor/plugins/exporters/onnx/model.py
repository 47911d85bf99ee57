"""The float model of transformers with quantized modules replaced by ones that emit operators on packed codes."""

from typing import Any

import torch
from torch import Tensor, nn

from edgerazor.core.contracts import Checkpoint
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import ExportError
from edgerazor.plugins.exporters.onnx.convolutions import PlaceholderConvolution
from edgerazor.plugins.exporters.onnx.empty_model import empty_model
from edgerazor.plugins.exporters.onnx.placeholders import (
    OperatorNorm,
    PackedMatrix,
    PlaceholderEmbedding,
    PlaceholderLinear,
)
from edgerazor.plugins.exporters.onnx.plan import ONNXPlan


def build_model(checkpoint: Checkpoint, plan: ONNXPlan) -> Any:
    """The model without float matrices where the checkpoint has codes; everything else is float32.

    Raises:
        ExportError: transformers cannot build the model, or model and checkpoint have different tensors.
    """
    model = empty_model(checkpoint)
    problems: list[str] = []
    for name in (*plan.matrices, *(name.rpartition(".")[0] for name in plan.floats)):
        try:
            model.get_submodule(name)
        except AttributeError:
            problems.append(f"{name}: {type(model).__name__} has no such module")
    if problems:
        raise ExportError("\n".join(dict.fromkeys(problems)))
    _put_placeholders(model, checkpoint, plan)
    _put_floats(model, checkpoint, plan)
    missing = [name for name, value in model.named_parameters() if value.is_meta]
    if missing:
        raise ExportError(f"{checkpoint.folder}: has no tensor for {missing[0]} ({len(missing)} are missing)")
    return model


def _put_placeholders(model: Any, checkpoint: Checkpoint, plan: ONNXPlan) -> None:
    for name, matrix in plan.matrices.items():
        value = checkpoint.read(f"{name}.weight")
        assert isinstance(value, QuantizedTensor)
        bias = _float(checkpoint, f"{name}.bias") if f"{name}.bias" in plan.floats else None
        if matrix.shape is not None:
            model.set_submodule(name, PlaceholderConvolution(matrix, value, model.get_submodule(name), bias))
            continue
        weight = PackedMatrix(matrix, value)
        if matrix.kind == "embedding":
            # Gemma's own class multiplies what it looks up; Granite's model does so outside.
            factor = getattr(model.get_submodule(name), "embed_scale", None)
            model.set_submodule(name, PlaceholderEmbedding(weight, factor))
            continue
        model.set_submodule(name, PlaceholderLinear(weight, bias))
    embedding = None if plan.facts.image else model.get_input_embeddings()
    if plan.facts.tied and isinstance(embedding, PlaceholderEmbedding):
        model.set_output_embeddings(PlaceholderLinear(embedding.weight, None))


def _put_floats(model: Any, checkpoint: Checkpoint, plan: ONNXPlan) -> None:
    unknown = []
    for name in plan.floats:
        module_name, _, attribute = name.rpartition(".")
        module = model.get_submodule(module_name)
        epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        if epsilon is not None and type(module).__name__.endswith("RMSNorm"):
            norm = OperatorNorm(_float(checkpoint, name), float(epsilon), plan.facts.norm_offset)
            model.set_submodule(module_name, norm)
        elif attribute in module._parameters:
            module._parameters[attribute] = nn.Parameter(_float(checkpoint, name), requires_grad=False)
        elif attribute in module._buffers:
            module._buffers[attribute] = _float(checkpoint, name)
        elif not (isinstance(module, PlaceholderLinear | PlaceholderConvolution) and attribute == "bias"):
            unknown.append(f"{name}: {type(model).__name__} has no such parameter")
    if unknown:
        raise ExportError("\n".join(unknown))
    if plan.facts.tied and not isinstance(model.get_output_embeddings(), PlaceholderLinear):
        model.get_output_embeddings().weight = model.get_input_embeddings().weight


def _float(checkpoint: Checkpoint, name: str) -> Tensor:
    value = checkpoint.read(name)
    assert isinstance(value, Tensor)
    return value.to(torch.float32)
