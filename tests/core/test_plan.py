"""What a plan says before a weight exists: rules, shapes, ties, bits and bytes (METHOD 2.4 and 3)."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from edgerazor.core.plan import Plan, build_plan
from edgerazor.core.registry import Registry
from edgerazor.errors import PlanError
from edgerazor.schemas.quantization import QuantizationSection
from edgerazor.schemas.recipe import load_recipe

INT4 = {"name": "int", "bits": 4, "group_size": 32}
TERNARY = {"name": "ternary", "group_size": 32}
PLAIN = {"activations": None, "kv_cache": None}


@pytest.fixture(scope="module")
def model(build_model: Callable[..., nn.Module]) -> nn.Module:
    return build_model()


@pytest.fixture(scope="module")
def qwen3_06b() -> nn.Module:
    """Shapes of Qwen3-0.6B, no weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        "qwen3",
        vocab_size=151936,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize(
    ("preset", "compression", "megabytes", "nominal"),
    [
        ("4-bit", 3.937, 302.8, 4.0),
        ("2.79-bit", 5.048, 236.8, 2.79),
        ("1.88-bit", 6.402, 187.3, 1.8825),
        ("1.58-bit", 7.031, 170.7, 1.58),
    ],
)
def test_published_sizes(
    registry: Registry, qwen3_06b: nn.Module, preset: str, compression: float, megabytes: float, nominal: float
) -> None:
    recipe = load_recipe(
        {"model": {"name_or_path": "Qwen3-0.6B", "family": "qwen3"}, "preset": preset}, registry=registry
    )
    assert recipe.quantization is not None
    adapter = registry.adapter_for("qwen3")
    plan = build_plan(qwen3_06b, recipe.quantization, adapter=adapter, registry=registry)
    assert plan.parameters == 596_049_920 and plan.quantized_parameters == 155_582_464 + 440_401_920
    assert round(100 * plan.coverage, 3) == 99.989
    assert plan.compression == pytest.approx(compression, abs=0.0005)
    assert plan.bytes / 1e6 == pytest.approx(megabytes, rel=0.003)
    body = [module for module in plan.modules if module.kind == "linear" and module.name != "lm_head"]
    assert sum(module.weights for module in body) == 440_401_920
    assert body[0].nominal_bits == pytest.approx(nominal)
    assert not plan.matrices_left_out and not plan.notes and sum(plan.rest.values()) == 65_536


@pytest.mark.parametrize(
    ("preset", "share", "nominal"), [("1.88-bit-tensor", 0.1333, 1.903), ("2.79-bit-tensor", 0.5, 2.79)]
)
def test_budgets_spent_on_whole_matrices(
    registry: Registry, qwen3_06b: nn.Module, preset: str, share: float, nominal: float
) -> None:
    content = {"model": {"name_or_path": "Qwen3-0.6B", "family": "qwen3"}, "preset": preset}
    recipe = load_recipe(content, registry=registry)
    plan = build_plan(qwen3_06b, recipe.quantization, adapter=registry.adapter_for("qwen3"), registry=registry)
    body = [module for module in plan.modules if module.kind == "linear" and module.name != "lm_head"]
    weights = sum(module.weights for module in body)
    assert all(len(module.widths) == 1 for module in body)
    high = sum(module.weights for module in body if 7 in module.widths)
    assert high / weights == pytest.approx(share, abs=1e-4)
    assert sum(module.weights * module.nominal_bits for module in body) / weights == pytest.approx(nominal, abs=2e-3)


def test_the_first_rule_that_matches_wins(model: nn.Module, plan_model: Callable[..., Plan]) -> None:
    rules = [
        {"match": ["*.embed_tokens", "lm_head"], "quantizer": INT4},
        {"match": "model.layers.1.*.down_proj", "quantizer": None},
        {"match": ["*.layers.0.*", "*.k_proj"], "quantizer": TERNARY},
        {"match": "*", "quantizer": INT4},
    ]
    plan = plan_model(model, weights=rules)
    rule = {module.name: module.rule for module in plan.modules}
    assert len(rule) == 2 + 2 * 7
    assert rule["lm_head"] == rule["model.embed_tokens"] == 0
    assert rule["model.layers.1.mlp.down_proj"] == 1
    assert rule["model.layers.0.mlp.down_proj"] == rule["model.layers.1.self_attn.k_proj"] == 2
    assert rule["model.layers.1.mlp.up_proj"] == 3
    untouched = next(module for module in plan.modules if module.rule == 1)
    assert untouched.params is None and untouched.bytes == 2 * untouched.weights and untouched.effective_bits == 16
    assert plan.quantized_parameters == plan.parameters - sum(plan.rest.values()) - untouched.weights


def test_layer_one_is_not_layer_ten(build_model: Callable[..., nn.Module], plan_model: Callable[..., Plan]) -> None:
    deep = build_model(num_hidden_layers=11)
    plan = plan_model(deep, weights=[{"match": "*layers.1.*", "quantizer": INT4}])
    assert {module.name.split(".")[2] for module in plan.modules} == {"1"}


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            [{"match": "*", "quantizer": INT4}, {"match": "*.q_porj", "quantizer": INT4}],
            r"weights\[1\].match: '\*.q_porj' matches no module",
        ),
        (
            [{"match": ["lm_heads", "*"], "quantizer": INT4}],
            r"weights\[0\].match: 'lm_heads' matches no module; did you mean 'lm_head'\?",
        ),
        (
            [{"match": "*", "quantizer": INT4}, {"match": "*.q_proj", "quantizer": TERNARY}],
            r"weights\[1\].match: all modules it matches are taken by earlier rules",
        ),
        (
            [{"match": "lm_head", "quantizer": TERNARY}, {"match": "*", "quantizer": INT4}],
            r"tied modules.*model.embed_tokens: int.*lm_head: ternary",
        ),
        (
            [{"match": "lm_head", "quantizer": None}, {"match": "*", "quantizer": INT4}],
            r"tied modules.*lm_head: 16 bit",
        ),
        ([{"match": ["lm_head", "*.q_proj"], "quantizer": INT4}], "tied modules.*embed_tokens: 16 bit"),
    ],
)
def test_rules_that_cannot_be_meant(
    model: nn.Module, plan_model: Callable[..., Plan], rules: list[Any], message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        plan_model(model, weights=rules)


def test_two_rules_may_agree_on_tied_modules(model: nn.Module, plan_model: Callable[..., Plan]) -> None:
    plan = plan_model(model, weights=[{"match": "lm_head", "quantizer": INT4}, {"match": "*", "quantizer": dict(INT4)}])
    head = next(module for module in plan.modules if module.name == "lm_head")
    assert head.tied_to == "model.embed_tokens" and head.bytes == 0
    assert plan.parameters == sum(value.numel() for value in model.parameters())


def test_an_untied_head_may_differ(build_model: Callable[..., nn.Module], plan_model: Callable[..., Plan]) -> None:
    model = build_model(tie_word_embeddings=False)
    plan = plan_model(model, weights=[{"match": "lm_head", "quantizer": TERNARY}, {"match": "*", "quantizer": INT4}])
    assert all(module.tied_to is None for module in plan.modules)
    assert plan.quantized_parameters == sum(module.weights for module in plan.modules)


def test_every_shape_that_does_not_fit_is_named(model: nn.Module, plan_model: Callable[..., Plan]) -> None:
    with pytest.raises(PlanError) as error:
        plan_model(
            model,
            weights=[{"match": "*", "quantizer": {**INT4, "group_size": 64}}],
            activations={"name": "int", "bits": 8, "group_size": 64},
            kv_cache={"name": "int", "bits": 8, "group_size": 32},
        )
    lines = str(error.value).splitlines()
    for layer in (0, 1):
        weight = f"model.layers.{layer}.mlp.down_proj: 96 columns are not a multiple of group_size 64; 96, 32 would fit"
        assert weight in lines
        assert weight.replace("down_proj:", "down_proj: activations:") in lines
    cure = "16, 8, 4, 2, 1 would fit"
    assert f"quantization.kv_cache: head_dim 16: 16 columns are not a multiple of group_size 32; {cure}" in lines
    assert len(lines) == 5


@pytest.mark.parametrize("placement", ["every_nth_row", "variance_groups", "first_columns", "strided_groups"])
def test_a_group_larger_than_the_row_is_an_error_of_ours(
    model: nn.Module, plan_model: Callable[..., Plan], placement: str
) -> None:
    quantizer = {"name": "sqmp", "high_ratio": 0.5, "placement": placement, "group_size": 1024}
    with pytest.raises(PlanError, match="64 columns are not a multiple of group_size 1024; 64, 32 would fit"):
        plan_model(model, weights=[{"match": "*", "quantizer": quantizer}])


@pytest.mark.parametrize("slot", ["activations", "kv_cache"])
def test_rows_that_depend_on_each_other_are_refused_for_tokens(
    model: nn.Module, plan_model: Callable[..., Plan], slot: str
) -> None:
    quantizer = {"name": "sqmp", "high_ratio": 0.5, "group_size": 16}
    with pytest.raises(PlanError, match=f"quantization.{slot}: its rows depend on each other"):
        plan_model(model, **{slot: quantizer})


def test_matrices_it_cannot_take_are_listed(
    build_model: Callable[..., nn.Module], plan_model: Callable[..., Plan]
) -> None:
    class OwnLinear(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input) * 2

    model = build_model()
    whole = plan_model(model, weights=[{"match": "*", "quantizer": INT4}])
    model.model.layers[1].mlp.up_proj = OwnLinear(64, 96, bias=False)
    model.experts = nn.Module()
    model.experts.gate_up = nn.Parameter(torch.zeros(4, 64, 32))
    plan = plan_model(model, weights=[{"match": "*", "quantizer": INT4}])
    assert plan.matrices_left_out == ("model.layers.1.mlp.up_proj.weight", "experts.gate_up")
    share = [f"{weights / plan.parameters:.2%}" for weights in (64 * 96, 4 * 64 * 32)]
    assert plan.notes == (
        "model.layers.1.mlp.up_proj [96, 64]: OwnLinear cannot be quantized here; stays at 16 bit, which takes "
        f"{share[0]} off the coverage",
        "experts.gate_up [4, 64, 32]: Module cannot be quantized here; stays at 16 bit, which takes "
        f"{share[1]} off the coverage",
    )
    assert plan.coverage < whole.coverage
    assert plan.rest["experts.gate_up"] == 4 * 64 * 32


def test_fused_experts_and_routers_of_transformers_are_named(registry: Registry) -> None:
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    sizes = {"hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 32, "head_dim": 16, "vocab_size": 96}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_experts": 4, "num_hidden_layers": 2}
    with torch.device("meta"):
        model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**sizes, **heads, tie_word_embeddings=True))
    section = QuantizationSection.model_validate(
        {"weights": [{"match": "*", "quantizer": INT4}]}, context={"registry": registry}
    )
    plan = build_plan(model, section, adapter=registry.adapter_for("qwen3"), registry=registry)
    for name, shape in (("experts.gate_up_proj", "[4, 64, 64]"), ("experts.down_proj", "[4, 64, 32]"), ("gate", "[4")):
        (note,) = [note for note in plan.notes if note.startswith(f"model.layers.{{0-1}}.mlp.{name} ×2 {shape}")]
        assert "cannot be quantized here; stays at 16 bit" in note
    taken_off = [float(share) for note in plan.notes for share in re.findall(r"takes ([\d.]+)% off", note)]
    vectors = sum(value.numel() for value in model.parameters() if value.ndim < 2)
    assert plan.coverage == pytest.approx(1 - sum(taken_off) / 100 - vectors / plan.parameters, abs=2e-4)
    assert plan.coverage < 0.8


def test_a_foreign_module_that_shares_a_quantized_weight_is_named(
    build_model: Callable[..., nn.Module], plan_model: Callable[..., Plan]
) -> None:
    class Bilinear(nn.Module):
        def __init__(self, weight: nn.Parameter):
            super().__init__()
            self.weight = weight

    model = build_model()
    model.second_head = Bilinear(model.model.embed_tokens.weight)
    (note,) = plan_model(model, weights=[{"match": "*", "quantizer": INT4}]).notes
    assert note.startswith("second_head (Bilinear) shares its weight with a quantized module")


def test_modules_that_no_rule_takes_are_noted(model: nn.Module, plan_model: Callable[..., Plan]) -> None:
    plan = plan_model(model, weights=[{"match": "*.mlp.*", "quantizer": INT4}], **PLAIN)
    share = f"{2 * 64 * 64 / plan.parameters:.2%}"
    said = "no rule takes it; stays at 16 bit, which takes"
    assert f"model.layers.{{0-1}}.self_attn.q_proj ×2 [64, 64]: {said} {share} off the coverage" in plan.notes
    assert sum(note.startswith("model.layers") for note in plan.notes) == 4
    assert {"model.layers.0.self_attn.q_proj.weight", "model.embed_tokens.weight"} <= set(plan.matrices_left_out)


def test_figures_add_up(model: nn.Module, plan_model: Callable[..., Plan]) -> None:
    plan = plan_model(
        model, weights=[{"match": "*.mlp.*", "quantizer": {"name": "sqmp", "high_ratio": 0.25, "group_size": 32}}]
    )
    weights, rest = 2 * 3 * 64 * 96, plan.parameters - 2 * 3 * 64 * 96
    nominal = 0.25 * 4 + 0.75 * 1.58
    assert plan.quantized_parameters == weights and plan.coverage == pytest.approx(weights / plan.parameters)
    assert plan.nominal_bits == pytest.approx(nominal) and plan.effective_bits == pytest.approx(nominal + 0.5)
    assert plan.compression == pytest.approx(16 * plan.parameters / (weights * (nominal + 0.5) + 16 * rest))

    def stored(rows: int, columns: int) -> int:
        high = rows // 4
        codes = high * columns // 2 + (rows - high) * -(-columns // 5)
        return codes + 2 * rows * columns // 32 + rows // 8

    assert plan.bytes == 2 * (2 * stored(96, 64) + stored(64, 96)) + 2 * rest


def test_a_plan_needs_no_weights(model: nn.Module, plan_model: Callable[..., Plan]) -> None:
    with torch.device("meta"):
        empty = type(model)(model.config)
    assert plan_model(empty) == plan_model(model)
