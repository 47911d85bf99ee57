"""Quantized keys and values belong to attention: they act wherever it runs; no token sees a later one (METHOD 3)."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from edgerazor.core.layers.attention import (
    EAGER,
    SDPA,
    apply_kv_quantizer,
    attention_modules,
    recorded_keys_and_values,
    remove_kv_quantizer,
)
from edgerazor.errors import PlanError
from tests.plugins.quantizer_cases import build

IDS = torch.randint(0, 96, (2, 12), generator=torch.Generator().manual_seed(0))
KV_ONLY: dict[str, Any] = {
    "weights": [{"match": "*", "quantizer": None}],
    "activations": None,
    "kv_cache": {"name": "int", "bits": 3, "group_size": 16},
}
families = pytest.mark.parametrize("family", ["qwen3", "llama"])


def logits(model: Any, ids: Tensor = IDS, **values: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=ids, **values).logits


def step_by_step(model: Any, ids: Tensor) -> Tensor:
    """Logits of every position, one token at a time through the cache."""
    cache, steps = None, []
    with torch.no_grad():
        for position in range(ids.shape[1]):
            out = model(input_ids=ids[:, position : position + 1], past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            steps.append(out.logits)
    return torch.cat(steps, dim=1)


def test_keys_and_values_are_quantized_and_the_query_is_not(
    build_model: Callable[..., nn.Module], quantize_model: Callable[..., nn.Module]
) -> None:
    model = quantize_model(build_model(), **KV_ONLY)
    module = model.model.layers[0].self_attn
    query, key, value = torch.randn(2, 4, 5, 16), torch.randn(2, 2, 5, 16), torch.randn(2, 2, 5, 16)
    quantize = module.kv_quantizer.fake_quantize
    found, _ = ALL_ATTENTION_FUNCTIONS[SDPA](module, query, key, value, None, scaling=0.25, dropout=0.0)
    expected, _ = sdpa_attention_forward(module, query, quantize(key), quantize(value), None, scaling=0.25, dropout=0.0)
    assert torch.equal(found, expected)
    assert all(module.kv_quantizer is not None for _, module in attention_modules(model))


@families
def test_it_acts_with_and_without_a_cache(
    build_model: Callable[..., nn.Module], quantize_model: Callable[..., nn.Module], family: str
) -> None:
    plain, model = build_model(family), quantize_model(build_model(family), **KV_ONLY)
    without, cached = logits(model, use_cache=False), logits(model, use_cache=True)
    assert torch.equal(without, cached)
    assert float((without - logits(plain)).abs().max()) > 1e-2
    assert float((step_by_step(model, IDS) - logits(plain)).abs().max()) > 1e-2


@families
@pytest.mark.parametrize("section", [KV_ONLY, {}], ids=["keys and values", "everything"])
def test_prefill_equals_token_by_token(
    build_model: Callable[..., nn.Module],
    quantize_model: Callable[..., nn.Module],
    family: str,
    section: dict[str, Any],
) -> None:
    model = quantize_model(build_model(family), **section)
    whole = logits(model)
    assert float((step_by_step(model, IDS) - whole).abs().max()) <= 1e-5 * float(whole.abs().max())


def test_each_token_is_quantized_once_on_its_way_into_the_cache(
    build_model: Callable[..., nn.Module], quantize_model: Callable[..., nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = quantize_model(build_model(), **KV_ONLY)
    quantizer, sizes = model.model.layers[0].self_attn.kv_quantizer, list[int]()

    def counted(of: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: sizes.append(x.numel()) or of(x)  # type: ignore[func-returns-value]

    for name in ("fake_quantize", "fake_quantize_only"):
        monkeypatch.setattr(quantizer, name, counted(getattr(quantizer, name)))
    with torch.no_grad():
        cache = model(input_ids=IDS, use_cache=True).past_key_values
        model(input_ids=IDS[:, :1], past_key_values=cache)
    layers, tokens, size = len(model.model.layers), IDS.numel(), 2 * 16  # two heads of 16
    assert sum(sizes) == layers * 2 * size * (tokens + len(IDS))
    assert cache.layers[0].keys.shape[2] == IDS.shape[1] + 1


def test_a_model_can_be_pickled(
    build_model: Callable[..., nn.Module], quantize_model: Callable[..., nn.Module]
) -> None:
    model: Any = quantize_model(build_model(), **KV_ONLY)
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(logits(again), logits(model)) and torch.equal(step_by_step(again, IDS), step_by_step(model, IDS))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cache_holds_what_attention_sees(
    build_model: Callable[..., nn.Module], quantize_model: Callable[..., nn.Module], dtype: torch.dtype
) -> None:
    model: Any = quantize_model(build_model().to(dtype), **KV_ONLY)
    with recorded_keys_and_values(model) as without, torch.no_grad():
        model(input_ids=IDS, use_cache=False)
    with recorded_keys_and_values(model) as inside, torch.no_grad():
        cache = model(input_ids=IDS, use_cache=True).past_key_values
    for layer, outside, seen in zip(cache.layers, without, inside, strict=True):
        for kept, plain, shown in zip((layer.keys, layer.values), outside, seen, strict=True):
            assert torch.equal(kept, plain) and torch.equal(shown, plain)


@families
def test_no_token_depends_on_a_later_one(
    build_model: Callable[..., nn.Module], quantize_model: Callable[..., nn.Module], family: str
) -> None:
    model, other = quantize_model(build_model(family)), IDS.clone()
    other[:, 7:] = (other[:, 7:] + 11) % 96
    one, two = logits(model), logits(model, other)
    assert torch.equal(one[:, :7], two[:, :7]) and not torch.equal(one[:, 7:], two[:, 7:])


def test_padding_changes_nothing(
    build_model: Callable[..., nn.Module], quantize_model: Callable[..., nn.Module]
) -> None:
    model = quantize_model(build_model(), **KV_ONLY)
    padded = torch.cat([torch.zeros(2, 4, dtype=torch.long), IDS], dim=1)
    mask = (torch.arange(16) >= 4).long().repeat(2, 1)
    positions = (torch.arange(16) - 4).clamp(min=0).repeat(2, 1)
    found = logits(model, padded, attention_mask=mask, position_ids=positions)
    torch.testing.assert_close(found[:, 4:], logits(model), rtol=1e-4, atol=1e-4)


@families
def test_generation_quantizes(
    build_model: Callable[..., nn.Module], quantize_model: Callable[..., nn.Module], family: str
) -> None:
    model = quantize_model(build_model(family), **KV_ONLY)
    options = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "attention_mask": torch.ones_like(IDS)}
    with torch.no_grad():
        generated = model.generate(IDS, **options)
        unquantized = build_model(family).generate(IDS, **options)
    assert torch.equal(logits(model, generated)[:, 11:-1].argmax(dim=-1), generated[:, 12:])
    assert not torch.equal(generated, unquantized)


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_gives_the_same_gradients(
    build_model: Callable[..., nn.Module], quantize_model: Callable[..., nn.Module], reentrant: bool
) -> None:
    def gradients(checkpointing: bool, **section: Any) -> dict[str, Tensor]:
        model = quantize_model(build_model(), **section).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
            model.enable_input_require_grads()
        model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
        return {name: value.grad for name, value in model.named_parameters()}

    plain, checkpointed, unquantized = gradients(False), gradients(True), gradients(True, kv_cache=None)
    assert all(torch.equal(plain[name], checkpointed[name]) for name in plain)
    name = "model.layers.0.self_attn.v_proj.weight"
    assert not torch.allclose(checkpointed[name], unquantized[name])


def test_eager_attention_agrees_and_shows_its_probabilities(
    build_model: Callable[..., nn.Module], quantize_model: Callable[..., nn.Module]
) -> None:
    model = quantize_model(build_model(), **KV_ONLY)
    eager = quantize_model(build_model(), attentions=True, **KV_ONLY)
    assert model.config._attn_implementation == SDPA and eager.config._attn_implementation == EAGER
    torch.testing.assert_close(logits(eager), logits(model), rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        attentions = eager(input_ids=IDS, output_attentions=True).attentions
    assert len(attentions) == 2 and attentions[0].shape == (2, 4, 12, 12)
    torch.testing.assert_close(attentions[0].sum(dim=-1), torch.ones(2, 4, 12))


def test_a_head_dim_that_does_not_divide_is_refused(build_model: Callable[..., nn.Module]) -> None:
    model = build_model()
    with pytest.raises(
        PlanError, match=r"layers.0.self_attn: kv_cache: head_dim: 16 columns.*16, 8, 4, 2, 1 would fit"
    ):
        apply_kv_quantizer(model, build("int", bits=8, group_size=32))
    assert model.config._attn_implementation == "sdpa"
    assert not any(hasattr(module, "kv_quantizer") for module in model.modules())


def test_other_attention_implementations_are_refused(build_model: Callable[..., nn.Module]) -> None:
    model = build_model()
    model.config._attn_implementation = "flex_attention"
    with pytest.raises(PlanError, match="'flex_attention' cannot quantize keys and values"):
        apply_kv_quantizer(model, build("int", bits=8, group_size=16))


def test_a_model_without_attention_is_refused(build_model: Callable[..., nn.Module]) -> None:
    model = nn.Linear(4, 4)
    model.config = build_model().config
    with pytest.raises(PlanError, match="Linear: no attention module"):
        apply_kv_quantizer(model, build("int", bits=8, group_size=16))


@pytest.mark.parametrize("part", ["whole", "base"])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_keys_and_values_stay_quantized_under_another_implementation(
    build_model: Callable[..., nn.Module], quantize_model: Callable[..., nn.Module], implementation: str, part: str
) -> None:
    """As after `model.set_attn_implementation("sdpa")`, which programs of others call; copies keep it, too."""
    model: Any = copy.deepcopy(quantize_model(build_model(), **KV_ONLY))
    expected = logits(model)
    model.set_attn_implementation(implementation)
    if part == "base":
        with torch.no_grad():
            found = model.lm_head(model.model(input_ids=IDS).last_hidden_state)
    else:
        found = logits(model)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, logits(build_model()), rtol=1e-4, atol=1e-4)


def test_an_implementation_that_cannot_quantize_is_refused_at_the_next_pass(
    build_model: Callable[..., nn.Module], quantize_model: Callable[..., nn.Module]
) -> None:
    model: Any = quantize_model(build_model(), **KV_ONLY)
    model.set_attn_implementation("flex_attention")
    with pytest.raises(PlanError, match="'flex_attention' cannot quantize keys and values; take 'sdpa' or 'eager'"):
        logits(model)
    remove_kv_quantizer(model)
    plain = [type(module) for _, module in attention_modules(build_model())]
    assert [type(module) for _, module in attention_modules(model)] == plain
    assert not model._forward_pre_hooks and not any(hasattr(module, "kv_quantizer") for module in model.modules())
