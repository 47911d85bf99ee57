"""Fixtures for every test: the built-in registry, and tiny models built from a config alone."""

import os
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import nn

# Without a CUDA device Triton kernels run in triton's interpreter; triton reads this once, and transformers imports it.
os.environ.setdefault("TRITON_INTERPRET", str(int(not torch.cuda.is_available())))

from edgerazor.core.apply import apply_plan
from edgerazor.core.discovery import load_plugins
from edgerazor.core.plan import Plan, build_plan
from edgerazor.core.registry import Registry
from edgerazor.schemas.quantization import QuantizationSection
from tests.sizes import TINY

MODEL = {
    "vocab_size": 96,
    **TINY,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "attn_implementation": "sdpa",
}
QUANTIZATION = {
    "weights": [
        {"match": ["*.embed_tokens", "lm_head"], "quantizer": {"name": "int", "bits": 4, "group_size": 32}},
        {"match": "*", "quantizer": {"name": "sqmp", "high_ratio": 0.125, "group_size": 32}},
    ],
    "activations": {"name": "int", "bits": 8, "group_size": 32},
    "kv_cache": {"name": "int", "bits": 8, "group_size": 16},
}


@pytest.fixture(scope="session")
def onnx_operators() -> None:
    """torch's table of ONNX operators, made once: every `torch.onnx.export` would spend a second on the same again."""
    if not find_spec("onnxscript"):
        return
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    ONNXRegistry.from_torchlib = staticmethod(cache(ONNXRegistry.from_torchlib))  # type: ignore[method-assign]


@pytest.fixture(scope="session")
def registry() -> Registry:
    """The built-in components."""
    return load_plugins(external=False)


@pytest.fixture(scope="session")
def build_model() -> Callable[..., nn.Module]:
    """`build_model("qwen3", **config)`: a seeded tiny causal language model in float32, evaluation mode."""

    def build(family: str = "qwen3", *, seed: int = 0, **values: Any) -> nn.Module:
        from transformers import AutoConfig, AutoModelForCausalLM

        config = AutoConfig.for_model(family, **{"tie_word_embeddings": True, **MODEL, **values})
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()

    return build


@pytest.fixture(scope="session")
def plan_model(registry: Registry) -> Callable[..., Plan]:
    """`plan_model(model, **section)`: the plan of a model under `QUANTIZATION` with keys replaced."""

    def plan(model: nn.Module, **section: Any) -> Plan:
        quantization = QuantizationSection.model_validate({**QUANTIZATION, **section}, context={"registry": registry})
        adapter = registry.adapter_for(model.config.model_type)
        return build_plan(model, quantization, adapter=adapter, registry=registry)

    return plan


@pytest.fixture(scope="session")
def quantize_model(registry: Registry, plan_model: Callable[..., Plan]) -> Callable[..., nn.Module]:
    """`quantize_model(model, **section)`: the same model, quantization-aware."""

    def apply(model: nn.Module, *, attentions: bool = False, **section: Any) -> nn.Module:
        return apply_plan(model, plan_model(model, **section), registry=registry, attentions=attentions)

    return apply
