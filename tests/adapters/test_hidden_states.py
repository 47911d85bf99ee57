"""Of a teacher only the hidden states that are read are kept."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from edgerazor.core.contracts import Signal
from edgerazor.core.discovery import load_plugins
from edgerazor.core.outputs import Targets
from edgerazor.distill import Distiller

REGISTRY = load_plugins(external=False)
IDS = torch.arange(12).reshape(2, 6)


def states(model: nn.Module, layers: list[int] | None) -> tuple[torch.Tensor, ...]:
    adapter: Any = REGISTRY.adapter_for(model.config.model_type)  # type: ignore[union-attr,arg-type]
    with torch.no_grad():
        found = adapter.forward(model, {"input_ids": IDS}, {Signal.HIDDEN_STATES}, layers=layers).hidden_states
    assert found is not None
    return found  # type: ignore[no-any-return]


def hook_count(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@pytest.mark.parametrize("layers", [[0], [1, 3], [2, 4], [0, 1, 2, 3, 4]])
def test_those_that_are_asked_for_are_the_model_s_own(build_model: Callable[..., nn.Module], layers: list[int]) -> None:
    model = build_model("qwen3", num_hidden_layers=4)
    everything, hooks = states(model, None), hook_count(model)
    few = states(model, layers)
    assert len(few) == len(everything) == 5 and hook_count(model) == hooks
    for number, (state, expected) in enumerate(zip(few, everything, strict=True)):
        if number in layers or number == 4:
            assert torch.equal(state, expected)
        else:
            assert state.numel() == 0


def test_layers_that_run_twice_are_all_kept(build_model: Callable[..., nn.Module]) -> None:
    REGISTRY.register_models()
    model = build_model("mobilellm", layer_sharing=True)
    everything, few = states(model, None), states(model, [1])
    assert len(everything) == 5
    assert all(torch.equal(state, expected) for state, expected in zip(few, everything, strict=True))


@pytest.mark.parametrize(
    ("layers", "kept"),
    [
        ({"name": "fixed", "layers": [1, 3]}, {1, 3}),
        ({"name": "lafd", "top_k": 2}, None),
        ({"name": "all"}, {1, 2, 3, 4}),
    ],
    ids=["fixed", "chosen per step", "all"],
)
def test_a_loss_is_what_it_is_with_all_states(
    build_model: Callable[..., nn.Module], layers: dict[str, Any], kept: set[int] | None
) -> None:
    student, teacher = (build_model("qwen3", num_hidden_layers=4) for _ in range(2))
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(1.1)
    adapter, targets = REGISTRY.adapter_for("qwen3"), Targets.from_labels(IDS, None)
    values = []
    for knows_the_models in (True, False):
        loss = REGISTRY.build(REGISTRY.params("loss", "feature_mse", layers=layers))
        composed = Distiller([loss], task_weight=0.1, adapter=adapter)
        if knows_the_models:
            composed.check_models(student.config, teacher.config)
            assert composed._teacher_layers() == kept
        values.append(composed(student, teacher, {"input_ids": IDS}, targets).value)
    assert torch.equal(*values) and float(values[0].detach()) > 0
