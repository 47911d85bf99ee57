"""A plan in effect: classes change, everything a user holds on to stays (METHOD 3)."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgerazor.core.apply import apply_plan
from edgerazor.core.layers.embedding import QuantEmbedding
from edgerazor.core.layers.linear import QuantLinear
from edgerazor.core.plan import Plan
from edgerazor.core.registry import Registry
from edgerazor.errors import PlanError

IDS = torch.randint(0, 96, (2, 9), generator=torch.Generator().manual_seed(0))


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def test_names_parameters_ties_and_types_stay(
    build_model: Callable[..., nn.Module], quantize_model: Callable[..., nn.Module]
) -> None:
    model = build_model()
    model.model.layers[0].mlp.up_proj.weight.requires_grad_(False)
    before = {name: (id(value), value.requires_grad, value.dtype) for name, value in model.named_parameters()}
    keys, values = list(model.state_dict()), copy.deepcopy(model.state_dict())
    quantize_model(model)
    assert {name: (id(value), value.requires_grad, value.dtype) for name, value in model.named_parameters()} == before
    assert list(model.state_dict()) == keys
    assert all(torch.equal(value, values[name]) for name, value in model.state_dict().items())
    assert model.lm_head.weight is model.model.embed_tokens.weight
    for name, module in model.named_modules():
        if name.endswith("_proj") or name == "lm_head":
            assert isinstance(module, nn.Linear) and isinstance(module, QuantLinear)
    assert isinstance(model.model.embed_tokens, nn.Embedding) and isinstance(model.model.embed_tokens, QuantEmbedding)


def test_hooks_still_run(build_model: Callable[..., nn.Module], quantize_model: Callable[..., nn.Module]) -> None:
    model, seen = build_model(), []
    for name in ("model.embed_tokens", "model.layers.0.self_attn.q_proj", "lm_head"):
        module = model.get_submodule(name)
        module.register_forward_hook(lambda module, inputs, out, name=name: seen.append(name))
        module.register_forward_pre_hook(lambda module, inputs, name=name: seen.append(f"before {name}"))
    logits(quantize_model(model))
    assert len(seen) == 6 and {"lm_head", "before model.embed_tokens"} <= set(seen)


def test_the_forward_pass_sees_quantized_weights(
    build_model: Callable[..., nn.Module], quantize_model: Callable[..., nn.Module], registry: Registry
) -> None:
    model = quantize_model(build_model(), activations=None, kv_cache=None)
    plain = build_model()
    assert not torch.allclose(logits(model), logits(plain))
    with torch.no_grad():
        for name, module in plain.named_modules():
            weight = getattr(model.get_submodule(name), "weight_quantizer", None)
            if weight is not None and name != "lm_head":
                module.weight.copy_(weight.quantize(module.weight).dequantize())
    assert torch.equal(logits(model), logits(plain))


def test_activations_are_quantized_before_every_linear(
    build_model: Callable[..., nn.Module], quantize_model: Callable[..., nn.Module]
) -> None:
    model, inputs = quantize_model(build_model()), {}
    module = model.model.layers[1].mlp.down_proj
    module.register_forward_hook(lambda module, args, out: inputs.update(x=args[0], out=out))
    logits(model)
    x = module.input_quantizer.fake_quantize(inputs["x"])
    assert not torch.equal(x, inputs["x"])
    weight = module.weight_quantizer.fake_quantize(module.weight)
    assert torch.equal(inputs["out"], nn.functional.linear(x, weight))


def test_training_and_evaluation_mode_agree(
    build_model: Callable[..., nn.Module], quantize_model: Callable[..., nn.Module]
) -> None:
    model = quantize_model(build_model())
    assert torch.equal(logits(model.train()), logits(model.eval()))


@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_every_parameter_learns(
    build_model: Callable[..., nn.Module], quantize_model: Callable[..., nn.Module], family: str
) -> None:
    model = quantize_model(build_model(family)).train()
    model(input_ids=IDS, labels=IDS).loss.backward()
    for name, value in model.named_parameters():
        assert value.grad is not None and bool(value.grad.any()), name


def test_gradients_of_tied_uses_add_up(
    build_model: Callable[..., nn.Module], quantize_model: Callable[..., nn.Module]
) -> None:
    tied = quantize_model(build_model())
    apart = build_model(tie_word_embeddings=False)
    apart.load_state_dict({**apart.state_dict(), **tied.state_dict()})
    apart.lm_head.weight.data.copy_(tied.lm_head.weight.data)
    quantize_model(apart)
    for model in (tied, apart):
        model(input_ids=IDS, labels=IDS).loss.backward()
    total = apart.lm_head.weight.grad + apart.model.embed_tokens.weight.grad
    torch.testing.assert_close(tied.lm_head.weight.grad, total)


def test_latent_weights_reload_to_the_same_logits(
    build_model: Callable[..., nn.Module], quantize_model: Callable[..., nn.Module]
) -> None:
    model = quantize_model(build_model())
    other = quantize_model(build_model(seed=1))
    assert not torch.equal(logits(other), logits(model))
    other.load_state_dict(model.state_dict())
    assert torch.equal(logits(other), logits(model))
    assert torch.equal(logits(copy.deepcopy(model)), logits(model))


def test_a_rule_without_a_quantizer_leaves_its_modules_alone(
    build_model: Callable[..., nn.Module], quantize_model: Callable[..., nn.Module]
) -> None:
    model = quantize_model(build_model(), weights=[{"match": "*", "quantizer": None}], activations=None, kv_cache=None)
    assert torch.equal(logits(model), logits(build_model()))
    assert not any(isinstance(module, (QuantLinear, QuantEmbedding)) for module in model.modules())


def test_a_replaced_forward_is_refused_and_nothing_changes(
    build_model: Callable[..., nn.Module], plan_model: Callable[..., Plan], registry: Registry
) -> None:
    model = build_model()
    plan = plan_model(model)
    module = model.model.layers[1].mlp.gate_proj
    module.forward = module.forward
    with pytest.raises(PlanError, match=r"model.layers.1.mlp.gate_proj: its forward was replaced"):
        apply_plan(model, plan, registry=registry)
    assert not any(isinstance(module, (QuantLinear, QuantEmbedding)) for module in model.modules())
    assert model.config._attn_implementation == "sdpa"
    assert torch.equal(logits(model), logits(build_model()))


@pytest.mark.parametrize("values", [{"intermediate_size": 128}, {"num_hidden_layers": 1}])
def test_a_plan_for_another_model_is_refused(
    build_model: Callable[..., nn.Module], plan_model: Callable[..., Plan], registry: Registry, values: dict[str, int]
) -> None:
    with pytest.raises(PlanError, match="the plan was made for another model"):
        apply_plan(build_model(**values), plan_model(build_model()), registry=registry)
