"""A plan names the modules that it never quantizes."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from torch import nn

from edgerazor.core.plan import Plan, build_plan
from edgerazor.core.registry import Registry
from edgerazor.errors import PlanError
from edgerazor.schemas.recipe import load_recipe


def test_convolutions_and_multihead_attention_are_named(
    build_model: Callable[..., nn.Module], plan_model: Callable[..., Plan]
) -> None:
    model: Any = build_model()
    model.patches = nn.Conv2d(3, 8, 4)
    model.sound = nn.Conv1d(4, 8, 3)
    model.mixer = nn.MultiheadAttention(16, 2)
    plan = plan_model(model)
    said = {note.partition(" [")[0]: note for note in plan.notes}
    assert "Conv2d: convolutions are not quantized; stays at 16 bit" in said["patches"]
    assert "Conv1d: convolutions are not quantized" in said["sound"]
    for name in ("mixer.in_proj_weight", "mixer.out_proj"):
        assert "nn.MultiheadAttention is not quantized" in said[name]
    assert set(plan.matrices_left_out) == {
        "patches.weight",
        "sound.weight",
        "mixer.in_proj_weight",
        "mixer.out_proj.weight",
    }
    assert not {module.name for module in plan.modules} & {"patches", "sound", "mixer", "mixer.out_proj"}


def test_weights_that_a_function_of_torch_would_use_unquantized_are_refused(
    build_model: Callable[..., nn.Module], registry: Registry
) -> None:
    """A family that offers every linear layer would offer the output projection of torch's attention too."""
    model: Any = build_model()
    model.mixer = nn.MultiheadAttention(64, 2)
    adapter = registry.adapter_for("qwen3")

    class Careless(type(adapter)):  # type: ignore[misc]
        def quantizable(self, model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
            return ((name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear))

    int4 = {"name": "int", "bits": 4, "group_size": 32}
    rules = [{"match": "mixer.*", "quantizer": int4}, {"match": "*", "quantizer": None}]
    raw = {"model": {"name_or_path": "x", "family": "qwen3"}, "quantization": {"weights": rules}}
    recipe = load_recipe(raw, registry=registry)
    with pytest.raises(PlanError, match=r"mixer\.out_proj: nn\.MultiheadAttention is not quantized: it hands its"):
        build_plan(model, recipe.quantization, adapter=Careless(adapter.params), registry=registry)
