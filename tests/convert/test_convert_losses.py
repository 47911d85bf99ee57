"""Losses of the original in our words, and every key of a loss that has none."""

from typing import Any

import pytest

from edgerazor.convert import ConversionResult, convert_recipe
from edgerazor.core.registry import Registry
from edgerazor.errors import RecipeError
from tests.convert.originals import features_loss, function, logits_loss

SELECT = {"target_types": ["linear", "embedding", "kv_cache"]}


def convert(registry: Registry, *losses: dict[str, Any], **values: Any) -> ConversionResult:
    numbered = {f"loss_{index}": loss for index, loss in enumerate(losses, 1)}
    distillation = {"method": "KD", **values, **numbered}
    quantization = {"select": SELECT, "function": function("4")}
    return convert_recipe({"qat_configuration": quantization, "kd_configuration": distillation}, registry=registry)


def loss(registry: Registry, **values: Any) -> dict[str, Any]:
    (found,) = convert(registry, values).recipe["distillation"]["losses"]
    return found


def problem(registry: Registry, **values: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        convert(registry, values)
    (line,) = caught.value.problems
    assert line.startswith("kd_configuration.loss_1")
    return line.removeprefix("kd_configuration.loss_1").removeprefix(".")


def test_defaults_are_the_originals(registry: Registry) -> None:
    """They are not ours: half the weight, temperature 2, five tokens of support."""
    assert loss(registry) == {"name": "reverse_kl", "weight": 0.5, "temperature": 2.0}
    found = loss(registry, loss_function="compute_kld_confidence")
    assert found == {"name": "eakld", "weight": 0.5, "temperature": 2.0, "uniform_support": 5}
    assert convert(registry, {}).recipe["distillation"]["task_weight"] == 1.0


@pytest.mark.parametrize(
    ("name", "ours"),
    [("compute_kld_forward", "forward_kl"), ("kldf", "forward_kl"), ("kld_reverse", "reverse_kl"), ("kldc", "eakld")],
)
def test_every_name_of_a_function_counts(registry: Registry, name: str, ours: str) -> None:
    assert loss(registry, loss_function=name)["name"] == ours


@pytest.mark.parametrize("name", ["compute_mse", "compute_fd", "fd"])
def test_features(registry: Registry, name: str) -> None:
    found = loss(registry, **features_loss(0.3, loss_function=name, layer_index=["low", -1]))
    assert found == {"name": "feature_mse", "weight": 0.3, "layers": {"name": "fixed", "layers": ["low", -1]}}


def test_the_labels_probability_may_balance(registry: Registry) -> None:
    found = loss(registry, **logits_loss(use_entropy=False))
    assert found == {"name": "cakld", "weight": 2.0, "temperature": 1.0}


@pytest.mark.parametrize(("old", "ours"), [("mean", "token_mean"), ("sum", "sum")])
def test_reductions(registry: Registry, old: str, ours: str) -> None:
    assert loss(registry, **logits_loss(reduction=old))["reduction"] == ours
    assert "reduction" not in loss(registry, **logits_loss())


@pytest.mark.parametrize(
    ("kind", "ours"), [("attentions", "attention_relation"), ("past_key_values", "key_value_relation")]
)
def test_relations_count_layers_from_one_here(registry: Registry, kind: str, ours: str) -> None:
    old = {"loss_type": kind, "loss_function": "compute_kld_forward", "layer_index": [0, 5, -1, "low", "high"]}
    converted = convert(registry, old)
    layers = {"name": "fixed", "layers": [1, 6, -1, 2, "high"]}
    expected = {"name": ours, "weight": 0.5, "divergence": "forward_kl", "layers": layers}
    assert converted.recipe["distillation"]["losses"] == [expected]
    assert any("counts decoder layers from 0" in note for note in converted.notes)


@pytest.mark.parametrize("key", ["self_relation_distill_component", "self_relation_dsitill_component"])
def test_keys_and_values_related_to_each_other(registry: Registry, key: str) -> None:
    old = {"loss_type": "past_key_values", "loss_function": "kldr", "layer_index": -1}
    assert "component" not in loss(registry, **old, **{key: "value"})
    assert loss(registry, **old, **{key: "both"})["component"] == "both"
    assert problem(registry, **old, **{key: "query"}).startswith(f"{key}: expected 'value', 'key' or 'both'")


def test_low_temperatures(registry: Registry) -> None:
    converted = convert(registry, logits_loss(temperature=0.05))
    assert converted.recipe["distillation"]["losses"][0]["temperature"] == 0.1
    assert any("loss_1.temperature: the original computes with 0.1 at least" in note for note in converted.notes)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"loss_type": "features"}, "loss_type: no output of a model is named 'features'"),
        ({"loss_function": "compute_kld_forwrd"}, "loss_function: no loss function is named 'compute_kld_forwrd'; did"),
        ({"loss_function": "compute_mse"}, "loss_function: 'compute_mse' of logits has no counterpart"),
        ({"loss_type": "hidden_states"}, "loss_function: 'compute_kld_reverse' of hidden_states has no counterpart"),
        ({"alpha": "much"}, "alpha: expected a number, got 'much'"),
        ({"alpha": -1}, "alpha: expected at least 0, got -1.0"),
        ({"temprature": 1.0}, "temprature: is no key of the original; did you mean 'temperature'?"),
        ({"padding_id": 0}, "padding_id: is 0; labels that are not learned are -100"),
        ({"is_router_logits": True}, "is_router_logits: has no counterpart"),
        ({"normalize": True}, "normalize: has no counterpart"),
        ({"reduction": "none"}, "reduction: 'none' gives a value per token"),
        ({"reduction": []}, "reduction: no reduction is named a list"),
        ({"loss_function": {}}, "loss_function: no loss function is named keys with values"),
        ({"reduction": "median"}, "reduction: no reduction is named 'median'"),
        ({"loss_function": "kldc", "confidence_k": 1}, "confidence_k: expected at least 2"),
        (features_loss(layer_index=None), "layer_index: names no layer"),
        (features_loss(layer_index="adaptve"), "layer_index: expected layer numbers, low, mid, high or adaptive, got"),
        (features_loss(layer_index=["adaptive", 1]), "layer_index: 'adaptive' beside other layers"),
        (features_loss(layer_index_adaptive_topk=0), "layer_index_adaptive_topk: expected at least 1"),
        (
            features_loss(layer_index_adaptive_metric="l1"),
            "layer_index_adaptive_metric: expected cosine_similarity, l2",
        ),
        ({"loss_type": "attentions", "layer_index": "adaptive"}, "layer_index: 'adaptive' has no counterpart here"),
        ({"loss_type": "attentions", "layer_index": "mid"}, "layer_index: 'mid' is another layer there"),
        (
            {"loss_type": "attentions", "loss_function": "kldc", "use_entropy": False, "layer_index": 1},
            "use_entropy: a label's probability says nothing about attention",
        ),
    ],
)
def test_what_has_no_counterpart(registry: Registry, values: dict[str, Any], line: str) -> None:
    assert problem(registry, **values).startswith(line)


def test_sections_around_the_losses(registry: Registry) -> None:
    with pytest.raises(RecipeError) as caught:
        convert(registry, method="QAT", loss_task_alpha=-1, loss_2="kldr", weight=1)
    assert caught.value.problems == [
        "kd_configuration.method: expected KD, got 'QAT'",
        "kd_configuration.loss_task_alpha: expected 0 or more, got -1",
        "kd_configuration.loss_2: expected keys with values, got 'kldr'",
        "kd_configuration.weight: is no key of the original; expected one of: log_level, loss_2, loss_task_alpha, "
        "method, router_aux_loss_coef, router_z_loss_coef",
    ]
    with pytest.raises(RecipeError, match="kd_configuration: no loss is given"):
        convert(registry)


def test_weights_of_routers_are_notes(registry: Registry) -> None:
    notes = convert(registry, {}, router_z_loss_coef=0.002, router_aux_loss_coef=0.01).notes
    assert any("add {name: router_z, weight: 0.002}" in note for note in notes)
    assert any("router_aux_loss_coef: is 0.01; a mixture of experts balances itself" in note for note in notes)
    assert not any("router" in note for note in convert(registry, {}, router_z_loss_coef=0).notes)
