"""Fixtures for every test: the built-in registry, and tiny models built from a config alone."""

import gc
import os
from collections.abc import Callable, Generator
from functools import cache
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from hypothesis import settings
from torch import nn

# The tensors here are tiny: threads that wait for each other would cost more than they give.
if os.environ.setdefault("OMP_NUM_THREADS", "1") == "1":
    torch.set_num_threads(1)
# Without a CUDA device Triton kernels run in triton's interpreter; triton reads this once, and transformers imports it.
os.environ.setdefault("TRITON_INTERPRET", str(int(not torch.cuda.is_available())))
# As the command does before it imports transformers, which reads it once: tests run commands inside this process.
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

from edgerazor.core.apply import apply_plan
from edgerazor.core.discovery import load_plugins
from edgerazor.core.plan import Plan, build_plan
from edgerazor.core.registry import Registry
from edgerazor.schemas.quantization import QuantizationSection
from tests.processes import other_pythons, watch_processes
from tests.sizes import TINY

settings.register_profile("edgerazor", deadline=None, derandomize=True, max_examples=5, database=None)
settings.load_profile("edgerazor")
watch_processes()

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long comes first, so that at the end no worker waits for another."""
    items.sort(key=lambda item: not any(item.get_closest_marker(mark) for mark in ("subprocess", "slow")))


def pytest_collection_finish() -> None:
    """What was imported stays to the end; a garbage collection, of which every training run asks several, skips it."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """A test and the fixtures made for it start another Python only if it is marked so."""
    with other_pythons(allowed=item.get_closest_marker("subprocess") is not None):
        return (yield)


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
