"""What a candidate means, what is allocated, and which matrices agree."""

import pytest

from edgerazor.allocate.candidates import body_rules, candidate_quantizer, tie_modules
from edgerazor.allocate.target import exact_target
from edgerazor.errors import RecipeError
from edgerazor.schemas.quantization import QuantizationSection

BODY = {"name": "sqmp", "high_ratio": 0.125, "group_size": 32, "high_bits": 5, "scale_multiplier": 1.5}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ternary", {"name": "ternary", "group_size": 32, "scale_multiplier": 1.5}),
        ("int3", {"name": "int", "bits": 3, "group_size": 32, "symmetric": True}),
        ("1/4", {"name": "sqmp", "high_ratio": "1/4", "high_bits": 5, "group_size": 32, "placement": "every_nth_row"}),
        ("{name: int, bits: 2, symmetric: false, group_size: 64}", {"bits": 2, "symmetric": False, "group_size": 64}),
    ],
)
def test_a_candidate_takes_from_the_body_rule_what_it_does_not_say(text, expected, registry):
    params = candidate_quantizer(text, registry.params("quantizer", **BODY), registry=registry)
    assert {key: getattr(params, key) for key in expected} == expected


def test_integers_of_the_body_s_width_are_those_of_the_body(registry):
    signed = {"symmetric": False, "scale": "signed_absmax"}
    body = registry.params("quantizer", name="int", bits=4, group_size=32, **signed)
    same, narrower = (candidate_quantizer(text, body, registry=registry) for text in ("int4", "int3"))
    assert same == body
    assert (narrower.symmetric, narrower.scale) == (True, "absmax")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("int9", "candidate int9: expected ternary, int4"),
        ("{bits: 4}", "expected ternary, int4"),
        ("{name: ternery}", "no quantizer named 'ternery'; did you mean 'ternary'"),
        ("{name: int, bits: 40}", "candidate {name: int, bits: 40}: "),
        ("[", "expected ternary, int4"),
    ],
)
def test_what_is_no_candidate_is_refused(text, message, registry):
    with pytest.raises(RecipeError) as error:
        candidate_quantizer(text, registry.params("quantizer", **BODY), registry=registry)
    assert message in str(error.value)


def section(registry, *rules):
    return QuantizationSection.model_validate({"weights": list(rules)}, context={"registry": registry})


def test_the_body_is_what_mixes_widths_or_what_is_left(registry):
    embedding = {"match": "*.embed_tokens", "quantizer": {"name": "int", "bits": 4}}
    some = {"match": "*.mlp.*", "quantizer": {"name": "sqmp", "high_ratio": 0.5}}
    rest = {"match": ["lm_head", "*"], "quantizer": {"name": "ternary"}}
    assert body_rules(section(registry, embedding, some, rest)) == [1, 2]
    with pytest.raises(RecipeError, match="no rule says which matrices"):
        body_rules(section(registry, embedding))
    with pytest.raises(RecipeError, match=r"weights\[1\]\.quantizer: is null"):
        body_rules(section(registry, embedding, {"match": "*", "quantizer": None}))


def test_q_k_v_and_gate_up_of_a_layer_agree_unless_set_free(build_model, plan_model, registry):
    model = build_model()
    plan, adapter = plan_model(model), registry.adapter_for("qwen3")
    tied, free = (tie_modules(plan, [1], adapter=adapter, free=free) for free in (False, True))
    assert [unit.name for unit in tied] == [
        f"model.layers.{layer}.{part}"
        for layer in (0, 1)
        for part in ("self_attn.{q_proj,k_proj,v_proj}", "self_attn.o_proj", "mlp.{gate_proj,up_proj}", "mlp.down_proj")
    ]
    assert len(free) == 14 and all(len(unit.modules) == 1 for unit in free)
    assert sum(unit.weights for unit in tied) == sum(unit.weights for unit in free)
    assert sum(unit.weights for unit in free) == sum(module.weights for module in plan.modules if module.rule == 1)


@pytest.mark.parametrize(
    ("bits", "exact", "uniform"),
    [
        (1.58, 1.58, "ternary"),
        (1.88, 1.8825, "1/8"),
        (1.8825, 1.8825, "1/8"),
        (2.79, 2.79, "1/2"),
        (2.0, 2.0, "1/6"),
        (1.9, 1.9, "1/8"),
        (3.5, 3.5, "1/2"),
        (4, 4.0, "int4"),
    ],
)
def test_a_target_names_a_uniform_mix_of_that_size_or_less(bits, exact, uniform):
    target, label = exact_target(bits)
    assert (float(target), label) == (exact, uniform)


def test_less_than_ternary_is_refused():
    with pytest.raises(RecipeError, match=r"a target of 1\.5 bits: ternary"):
        exact_target(1.5)
