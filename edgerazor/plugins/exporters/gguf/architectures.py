"""Names and keys of a GGUF, from the facts of a model and the tables of the package gguf."""

import math
from dataclasses import replace
from typing import Any

import gguf
from gguf import MODEL_TENSOR

from edgerazor.core.contracts import GGUFArchitecture, ModelFacts, TensorRole
from edgerazor.errors import ExportError
from edgerazor.plugins.exporters.gguf.rotation import Constants, rotation_keys, unsupported_positions
from edgerazor.schemas.base import nearest

Metadata = dict[str, Any]

# What plays a role in the vocabulary of llama.cpp; where architectures differ, the first one that it has.
_TENSORS: dict[str, tuple[MODEL_TENSOR, ...]] = {
    "embedding": (MODEL_TENSOR.TOKEN_EMBD,),
    "final_norm": (MODEL_TENSOR.OUTPUT_NORM,),
    "head": (MODEL_TENSOR.OUTPUT,),
    "attention_norm": (MODEL_TENSOR.ATTN_NORM,),
    "q": (MODEL_TENSOR.ATTN_Q,),
    "k": (MODEL_TENSOR.ATTN_K,),
    "v": (MODEL_TENSOR.ATTN_V,),
    "o": (MODEL_TENSOR.ATTN_OUT,),
    "q_norm": (MODEL_TENSOR.ATTN_Q_NORM,),
    "k_norm": (MODEL_TENSOR.ATTN_K_NORM,),
    "attention_output_norm": (MODEL_TENSOR.ATTN_POST_NORM,),
    "mlp_norm": (MODEL_TENSOR.FFN_NORM, MODEL_TENSOR.FFN_PRE_NORM),
    "mlp_output_norm": (MODEL_TENSOR.FFN_POST_NORM,),
    "gate": (MODEL_TENSOR.FFN_GATE,),
    "up": (MODEL_TENSOR.FFN_UP,),
    "down": (MODEL_TENSOR.FFN_DOWN,),
    "qkv": (MODEL_TENSOR.ATTN_QKV,),
}
_ARCHITECTURES = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}


def architecture_of(facts: ModelFacts) -> GGUFArchitecture:
    """What llama.cpp calls the family.

    Raises:
        ExportError: its facts name no architecture, or one that the package gguf does not know.
    """
    if facts.gguf is None:
        raise ExportError("the facts of this model's family name no GGUF architecture; llama.cpp may not know it")
    name = facts.gguf.name
    if name not in _ARCHITECTURES:
        raise ExportError(f"the package gguf knows no architecture '{name}'{nearest(name, _ARCHITECTURES)}")
    return facts.gguf


def tensor_name(role: TensorRole, architecture: GGUFArchitecture) -> str | None:
    """`blk.0.attn_q.weight` for the part a tensor plays; None if the architecture has no such tensor."""
    if role.bias and role.kind not in architecture.biases:
        return None
    of_architecture = gguf.MODEL_TENSORS[_ARCHITECTURES[architecture.name]]
    if role.kind == "gate_up" and architecture.fused:
        role = replace(role, kind="up")
    tensor = next((tensor for tensor in _TENSORS.get(role.kind, ()) if tensor in of_architecture), None)
    if tensor is None:
        return None
    template = gguf.TENSOR_NAMES[tensor]
    if ("{bid}" in template) != (role.layer is not None):
        return None
    return f"{template.format(bid=role.layer)}.{'bias' if role.bias else 'weight'}"


def needed_names(facts: ModelFacts, architecture: GGUFArchitecture) -> list[str]:
    """Names of all weights that the model must have, an output head of its own aside."""
    kept = [kind for kind in facts.fused if tensor_name(TensorRole(kind, 0), architecture) is not None]
    whole = {part: kind for kind in kept for part, _ in facts.fused[kind]}
    kinds = list(dict.fromkeys(whole.get(kind, kind) for kind in facts.layer_roles()))
    roles = [TensorRole("embedding"), TensorRole("final_norm")]
    roles += [TensorRole(kind, layer) for layer in range(facts.layers) for kind in kinds]
    return [name for role in roles if (name := tensor_name(role, architecture)) is not None]


def describe_model(
    facts: ModelFacts, architecture: GGUFArchitecture, context: int
) -> tuple[Metadata, Constants, list[str]]:
    """Keys of the format for a model, tensors that follow from its facts, and a line for what neither can express.

    Args:
        facts: of the model.
        architecture: what llama.cpp calls it.
        context: positions that the file is made for.
    """
    problems = _unsupported(facts, architecture) + unsupported_positions(facts, architecture, context)
    if problems:
        return {}, {}, problems
    keys: Metadata = {
        "context_length": context,
        "embedding_length": facts.hidden,
        "block_count": facts.layers,
        "feed_forward_length": facts.intermediate,
        "vocab_size": facts.vocab,
        "attention.head_count": facts.heads,
        "attention.head_count_kv": facts.kv_heads,
        "attention.key_length": facts.head_dim,
        "attention.value_length": facts.head_dim,
        "attention.layer_norm_rms_epsilon": facts.norm_eps,
    }
    rotation, constants = rotation_keys(facts, architecture)
    keys |= rotation | _scale_keys(facts, architecture)
    return {f"{architecture.name}.{key}": value for key, value in keys.items()}, constants, []


def _scale_keys(facts: ModelFacts, architecture: GGUFArchitecture) -> Metadata:
    stated: Metadata = {}
    if "attention_scale" in architecture.scales and facts.attention_scale is not None:
        stated["attention.scale"] = facts.attention_scale
    if "logit_scale" in architecture.scales:  # llama.cpp divides by it
        stated["logit_scale"] = 1 / facts.logit_scale
    for fact in ("embedding_scale", "residual_scale"):
        if fact in architecture.scales:
            stated[fact] = getattr(facts, fact)
    if architecture.logit_softcap and facts.logit_softcap is not None:
        stated["final_logit_softcapping"] = facts.logit_softcap
    return stated


def _unsupported(facts: ModelFacts, architecture: GGUFArchitecture) -> list[str]:
    """Properties of a model that would be lost without a word."""
    problems = []
    if facts.repeats != 1:
        problems.append(f"every layer runs {facts.repeats} times; a GGUF would hold every shared layer more than once")
    if facts.experts:
        problems.append(f"mixtures of experts are not supported; every layer has {facts.experts}")
    if facts.activation != architecture.activation:
        problems.append(f"activation {facts.activation} is not supported; expected {architecture.activation}")
    rows = facts.heads * facts.head_dim
    if architecture.whole_heads and rows != facts.hidden:
        problems.append(f"{facts.heads} heads of {facts.head_dim} are {rows} rows; llama.cpp expects {facts.hidden}")
    embedding = facts.hidden**0.5 if architecture.root_embedding else 1.0
    usual = {
        "embedding_scale": embedding,
        "attention_scale": None,
        "residual_scale": 1.0,
        "logit_scale": 1.0,
        "logit_softcap": facts.logit_softcap if architecture.logit_softcap else None,
        "attention_softcap": None,
    }
    for name, expected in usual.items():
        value = getattr(facts, name)
        if name == "attention_scale" and value is not None and math.isclose(value, facts.head_dim**-0.5):
            continue
        if value != expected and name not in architecture.scales:
            problems.append(f"{name} {value} is not supported")
    return problems
