"""Names and keys of a GGUF, from the facts of a model and the tables of the package gguf."""

from typing import Any

import gguf
from gguf import MODEL_TENSOR

from edgerazor.core.contracts import GGUFArchitecture, ModelFacts, TensorRole
from edgerazor.errors import ExportError
from edgerazor.plugins.exporters.model_facts import name_layers, short_windows
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
    tensor = next((tensor for tensor in _TENSORS.get(role.kind, ()) if tensor in of_architecture), None)
    if tensor is None:
        return None
    template = gguf.TENSOR_NAMES[tensor]
    if ("{bid}" in template) != (role.layer is not None):
        return None
    return f"{template.format(bid=role.layer)}.{'bias' if role.bias else 'weight'}"


def needed_names(facts: ModelFacts, architecture: GGUFArchitecture) -> list[str]:
    """Names of all weights that the model must have, an output head of its own aside."""
    roles = [TensorRole("embedding"), TensorRole("final_norm")]
    roles += [TensorRole(kind, layer) for layer in range(facts.layers) for kind in facts.layer_roles()]
    return [name for role in roles if (name := tensor_name(role, architecture)) is not None]


def describe_model(facts: ModelFacts, architecture: GGUFArchitecture) -> tuple[Metadata, list[str]]:
    """Keys of the format for a model, and a line for every fact that they cannot express."""
    problems = _unsupported(facts)
    rope = facts.rope
    if problems or rope is None:
        return {}, problems
    name = architecture.name
    keys: Metadata = {
        f"{name}.context_length": facts.context,
        f"{name}.embedding_length": facts.hidden,
        f"{name}.block_count": facts.layers,
        f"{name}.feed_forward_length": facts.intermediate,
        f"{name}.vocab_size": facts.vocab,
        f"{name}.attention.head_count": facts.heads,
        f"{name}.attention.head_count_kv": facts.kv_heads,
        f"{name}.attention.key_length": facts.head_dim,
        f"{name}.attention.value_length": facts.head_dim,
        f"{name}.attention.layer_norm_rms_epsilon": facts.norm_eps,
        f"{name}.rope.freq_base": rope.base,
    }
    if architecture.permuted:
        keys[f"{name}.rope.dimension_count"] = facts.head_dim
    if rope.sections:
        keys[f"{name}.rope.dimension_sections"] = [*rope.sections, 0, 0, 0, 0][:4]
    return keys, []


def _unsupported(facts: ModelFacts) -> list[str]:
    """Properties of a model that would be lost without a word."""
    problems = _unsupported_positions(facts)
    if facts.repeats != 1:
        problems.append(f"every layer runs {facts.repeats} times; a GGUF would hold every shared layer more than once")
    if facts.experts:
        problems.append(f"mixtures of experts are not supported; every layer has {facts.experts}")
    if facts.activation != "silu":
        problems.append(f"activation {facts.activation} is not supported; expected silu")
    plain = {
        "norm_offset": (facts.norm_offset, 0.0),
        "embedding_scale": (facts.embedding_scale, 1.0),
        "attention_scale": (facts.attention_scale, None),
        "residual_scale": (facts.residual_scale, 1.0),
        "logit_scale": (facts.logit_scale, 1.0),
        "logit_softcap": (facts.logit_softcap, None),
        "attention_softcap": (facts.attention_softcap, None),
    }
    problems += [f"{name} {value} is not supported" for name, (value, usual) in plain.items() if value != usual]
    return problems


def _unsupported_positions(facts: ModelFacts) -> list[str]:
    problems = [
        f"window {window} on {name_layers(layers)}: sliding windows are not supported"
        for window, layers in short_windows(facts, facts.context).items()
    ]
    still = [layer for layer, rope in enumerate(facts.ropes) if rope is None]
    if still:
        problems.append(f"no rotary embedding on {name_layers(still)}; every layer must rotate")
    elif facts.rope is None:
        problems.append("layers with rotary embeddings of their own are not supported")
    for kind in dict.fromkeys(rope.kind for rope in facts.ropes if rope is not None and rope.kind != "default"):
        problems.append(f"rope_type '{kind}' is not supported; expected 'default'")
    for partial in dict.fromkeys(rope.partial for rope in facts.ropes if rope is not None and rope.partial != 1.0):
        problems.append(f"partial_rotary_factor {partial} is not supported; every column of a head must be rotated")
    return problems
