"""Tiny random models to check adapters and exporters with."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgerazor.checkpoint import pack_model, round_unquantized_, write_checkpoint
from edgerazor.core.apply import apply_plan
from edgerazor.core.plan import Plan, build_plan
from edgerazor.core.registry import Registry
from edgerazor.schemas.recipe import Recipe, load_recipe

_WORDS = [f"def f{index}(x): return x * {index}" for index in range(20)]


def random_recipe(registry: Registry, *, kv_cache: bool) -> Recipe:
    """int4 weights and int8 activations, keys and values, one scale a row, so that any width fits."""
    int8 = {"name": "int", "bits": 8}
    quantization = {
        "weights": [{"match": "*", "quantizer": {"name": "int", "bits": 4}}],
        "activations": int8,
        "kv_cache": int8 if kv_cache else None,
    }
    return load_recipe({"model": {"name_or_path": "random"}, "quantization": quantization}, registry=registry)


def quantized(model: nn.Module, recipe: Recipe, *, adapter: Any, registry: Registry) -> Plan:
    """Make a model quantization-aware, in place, with the rest of it rounded as a checkpoint stores it."""
    plan = build_plan(model, recipe.quantization, adapter=adapter, registry=registry)
    apply_plan(model, plan, registry=registry)
    round_unquantized_(model)
    return plan


def write_packed(model: nn.Module, folder: Path, *, recipe: Recipe, plan: Plan, registry: Registry) -> None:
    """Write the packed checkpoint of a quantization-aware model."""
    write_checkpoint(model, folder, recipe=recipe, plan=plan, registry=registry)


def packed_example(folder: Path, registry: Registry) -> Path:
    """A packed Qwen3 of two layers and its tokenizer: int4 embedding and head, ternary and int4 rows in the rest."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = _tokenizer()
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        model = Qwen3ForCausalLM(config)
        for name, parameter in model.named_parameters():
            nn.init.normal_(parameter, mean=float(name.endswith("norm.weight")), std=0.2)
    model.to(torch.bfloat16).save_pretrained(folder / "float")
    tokenizer.save_pretrained(folder / "float")
    int4 = {"name": "int", "bits": 4, "group_size": 32}
    rules = [
        {"match": ["*.embed_tokens", "lm_head"], "quantizer": int4},
        {"match": "*", "quantizer": {"name": "sqmp", "high_ratio": 0.125, "group_size": 32}},
    ]
    content = {"model": {"name_or_path": str(folder / "float")}, "quantization": {"weights": rules}}
    return pack_model(load_recipe(content, registry=registry), registry=registry, output=folder / "packed").folder


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_WORDS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>", pad_token="<|end|>")
