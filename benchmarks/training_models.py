"""Teacher, student and batch of the training benchmarks: Qwen3 by shape, random weights, the same in every process."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

SHAPES: dict[str, dict[str, int]] = {
    "C": {
        "vocab_size": 32_000,
        "hidden_size": 512,
        "intermediate_size": 1536,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 64,
    },
    "G": {
        "vocab_size": 151_936,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
    "quickstart": {
        "vocab_size": 1024,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
    },
    "wide": {
        "vocab_size": 4096,
        "hidden_size": 512,
        "intermediate_size": 1536,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 64,
    },
    "tiny": {
        "vocab_size": 320,
        "hidden_size": 256,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
    },
}
BATCHES = {"C": (2, 256), "G": (4, 1024), "tiny": (2, 12)}


class Pair(NamedTuple):
    """A student in float32 that is a little away from its teacher, and what both read."""

    student: nn.Module
    teacher: nn.Module
    batch: dict[str, Tensor]


def build_pair(shape: dict[str, int], batch: tuple[int, int], *, device: str, dtype: torch.dtype) -> Pair:
    """Student and teacher of one shape.

    Args:
        batch: sequences and tokens of each.
        dtype: of the teacher's weights; the student keeps float32.
    """
    teacher = causal_model(shape, 0)
    student = causal_model(shape, 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in student.parameters():
            spread = parameter.std() if parameter.ndim > 1 else torch.tensor(0.1)
            parameter.add_(0.05 * spread * torch.randn(parameter.shape, generator=generator))
    ids = torch.randint(0, shape["vocab_size"], batch, generator=generator).to(device)
    teacher.eval().requires_grad_(False).to(device, dtype)
    return Pair(student.train().to(device), teacher, {"input_ids": ids, "labels": ids.clone()})


def causal_model(shape: dict[str, int], seed: int) -> Any:
    """A Qwen3 with tied embeddings, as sure of its tokens as a trained one: entropies of 2 to 3 nats.

    Its layers say more than the embedding that they start from, else every token would predict itself.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    values = {"tie_word_embeddings": True, "max_position_embeddings": 4096, "initializer_range": 0.06}
    config = AutoConfig.for_model("qwen3", **shape, **values)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa")
    with torch.no_grad():
        # Final states have unit variance; this spread of normal logits leaves a few likely tokens.
        spread = (2 * math.log(shape["vocab_size"])) ** 0.5
        model.get_input_embeddings().weight.normal_(std=spread / shape["hidden_size"] ** 0.5)
    return model
