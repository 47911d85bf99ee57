"""What all decoder-only families share: forward pass, roles, what may be quantized."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgerazor.adapters.decoder import output_head
from edgerazor.core.contracts import Signal, TensorRole
from edgerazor.core.outputs import Head
from edgerazor.core.registry import Registry
from edgerazor.errors import PlanError

IDS = torch.randint(0, 96, (2, 9), generator=torch.Generator().manual_seed(0))
FAMILIES = ["qwen3", "llama", "mistral", "qwen2"]
families = pytest.mark.parametrize("family", FAMILIES)
ALL = {Signal.LOGITS, Signal.HIDDEN_STATES}


@families
@pytest.mark.parametrize("quantized", [False, True])
def test_the_forward_pass_is_the_models_own(
    registry: Registry,
    build_model: Callable[..., nn.Module],
    quantize_model: Callable[..., nn.Module],
    family: str,
    quantized: bool,
) -> None:
    model = quantize_model(build_model(family)) if quantized else build_model(family)
    with torch.no_grad():
        expected = model(input_ids=IDS, output_hidden_states=True)
        output = registry.adapter_for(family).forward(model, {"input_ids": IDS}, ALL)
        again = model(input_ids=IDS).logits
    assert torch.equal(output.logits, expected.logits) and torch.equal(again, expected.logits)
    assert len(output.hidden_states) == 3 and output.attentions is None and output.keys is None
    assert all(
        torch.equal(ours, theirs) for ours, theirs in zip(output.hidden_states, expected.hidden_states, strict=True)
    )
    assert torch.equal(output.final_hidden, output.hidden_states[-1])


def test_only_the_signals_asked_for_are_kept(registry: Registry, build_model: Callable[..., nn.Module]) -> None:
    adapter = registry.adapter_for("qwen3")
    output = adapter.forward(build_model(), {"input_ids": IDS}, {Signal.LOGITS})
    assert output.hidden_states is None and output.attentions is None and output.final_hidden is not None
    eager = build_model(attn_implementation="eager")
    output = adapter.forward(eager, {"input_ids": IDS}, {Signal.ATTENTIONS})
    assert len(output.attentions) == 2 and output.attentions[0].shape == (2, 4, 9, 9)


def test_attentions_that_nobody_keeps_are_refused(
    registry: Registry, build_model: Callable[..., nn.Module], quantize_model: Callable[..., nn.Module]
) -> None:
    adapter = registry.adapter_for("qwen3")
    for model in (build_model(), Wrapped(build_model())):
        with pytest.raises(PlanError, match=r"the qwen3 model runs with attention 'sdpa', .* load it with eager"):
            adapter.forward(model, {"input_ids": IDS}, {Signal.ATTENTIONS})
    student = quantize_model(build_model(), attentions=True)
    assert len(adapter.forward(student, {"input_ids": IDS}, {Signal.ATTENTIONS}).attentions) == 2


@families
def test_what_is_promised_is_given(registry: Registry, build_model: Callable[..., nn.Module], family: str) -> None:
    adapter = registry.adapter_for(family)
    output = adapter.forward(build_model(family, attn_implementation="eager"), {"input_ids": IDS}, adapter.signals)
    assert Signal.HIDDEN_STATES in adapter.signals
    assert all(getattr(output, signal.value) is not None for signal in adapter.signals)


def test_masks_and_positions_reach_the_model_and_labels_do_not(
    registry: Registry, build_model: Callable[..., nn.Module]
) -> None:
    model, mask = build_model(), torch.ones(2, 9, dtype=torch.long)
    mask[0, :4] = 0
    batch = {"input_ids": IDS, "attention_mask": mask, "position_ids": torch.arange(9).repeat(2, 1) + 3}
    with torch.no_grad():
        expected = model(**batch).logits
        output = registry.adapter_for("qwen3").forward(model, {**batch, "labels": IDS, "label_bytes": None}, ALL)
        bare = registry.adapter_for("qwen3").forward(model, {"input_ids": IDS}, ALL)
    assert torch.equal(output.logits, expected) and not torch.equal(bare.logits[0], expected[0])


class Wrapped(nn.Module):
    """What data-parallel wrappers look like from outside."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)


def test_a_loss_inside_the_head_learns_what_one_outside_does(
    registry: Registry, build_model: Callable[..., nn.Module], quantize_model: Callable[..., nn.Module]
) -> None:
    adapter, seen = registry.adapter_for("qwen3"), []

    def inside(hidden: Tensor, head: Head) -> Tensor:
        seen.append(hidden)
        return head.logits(hidden).logsumexp(dim=-1).mean().reshape(1, 1, 1)

    inner, outer = quantize_model(build_model()), quantize_model(build_model())
    output = adapter.forward(Wrapped(Wrapped(inner)), {"input_ids": IDS}, {Signal.LOGITS}, inside_head=inside)
    expected = outer(input_ids=IDS).logits.logsumexp(dim=-1).mean()
    assert len(seen) == 1 and output.inside_head.shape == (1, 1, 1)
    torch.testing.assert_close(output.inside_head.sum(), expected)
    output.inside_head.sum().backward()
    expected.backward()
    for parameter, other in zip(inner.parameters(), outer.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad)


def test_a_failing_loss_leaves_the_head_as_it_was(registry: Registry, build_model: Callable[..., nn.Module]) -> None:
    model = build_model()
    expected = model(input_ids=IDS).logits

    def fails(hidden: Tensor, head: Head) -> Tensor:
        raise ArithmeticError("the loss failed")

    with pytest.raises(ArithmeticError, match="the loss failed"):
        registry.adapter_for("qwen3").forward(model, {"input_ids": IDS}, {Signal.LOGITS}, inside_head=fails)
    assert torch.equal(model(input_ids=IDS).logits, expected)


def test_heads_that_are_not_linear_are_refused(build_model: Callable[..., nn.Module]) -> None:
    model = build_model()
    model.lm_head = nn.Sequential(nn.Linear(64, 96))
    with pytest.raises(PlanError, match="the output head is Sequential"):
        output_head(model)


@families
def test_linears_and_embeddings_may_be_quantized(
    registry: Registry, build_model: Callable[..., nn.Module], family: str
) -> None:
    model = build_model(family)
    found = dict(registry.adapter_for(family).quantizable(model))
    assert set(found) == {
        name for name, module in model.named_modules() if isinstance(module, (nn.Linear, nn.Embedding))
    }
    output_head(model)
    assert set(dict(registry.adapter_for(family).quantizable(model))) == set(found)


def test_a_linear_class_with_a_forward_of_its_own_is_left_out(
    registry: Registry, build_model: Callable[..., nn.Module]
) -> None:
    class OwnLinear(nn.Linear):
        pass

    model = build_model()
    model.model.layers[0].mlp.up_proj = OwnLinear(64, 96)
    assert "model.layers.0.mlp.up_proj" not in dict(registry.adapter_for("qwen3").quantizable(model))


@families
@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_has_a_role(
    registry: Registry, build_model: Callable[..., nn.Module], family: str, tied: bool
) -> None:
    adapter = registry.adapter_for(family)
    names = [name for name, _ in build_model(family, tie_word_embeddings=tied).named_parameters()]
    roles = [adapter.role(name) for name in names]
    assert all(role.kind != "other" for role in roles) and len(set(roles)) == len(names)
    assert sum(role.layer is None for role in roles) == (2 if tied else 3)


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("model.layers.12.self_attn.q_proj.weight", TensorRole("q", 12)),
        ("model.layers.12.self_attn.q_proj", TensorRole("q", 12)),
        ("model.layers.0.self_attn.k_proj.bias", TensorRole("k", 0, bias=True)),
        ("model.layers.3.post_attention_layernorm.weight", TensorRole("mlp_norm", 3)),
        ("model.layers.3.self_attn.q_norm.weight", TensorRole("q_norm", 3)),
        ("model.embed_tokens.weight", TensorRole("embedding")),
        ("lm_head", TensorRole("head")),
        ("model.norm.weight", TensorRole("final_norm")),
        ("model.layers.3.mlp.experts.weight", TensorRole("other", 3)),
        ("visual.patch.weight", TensorRole("other")),
    ],
)
def test_roles(registry: Registry, name: str, role: TensorRole) -> None:
    assert registry.adapter_for("qwen3").role(name) == role
