"""Written rules give every module what was chosen, and modules outside the body what they had."""

from hypothesis import given, settings
from hypothesis import strategies as st

from edgerazor.allocate.candidates import candidate_quantizer
from edgerazor.allocate.write_recipe import assigned_section, globs
from edgerazor.schemas.quantization import QuantizationSection
from tests.fixtures import QUANTIZATION

CHOICES = ("ternary", "1/4", "int4", "{name: sqmp, placement: rows, high_rows: '0-2, 5'}")


@settings(max_examples=12)
@given(data=st.data())
def test_the_rules_plan_to_the_assignment(build_model, plan_model, registry, data) -> None:
    """Any assignment, with the body before or after a rule that overlaps with it."""
    model = build_model()
    rules = list(QUANTIZATION["weights"])
    if data.draw(st.booleans()):
        rules.insert(1, {"match": "*.down_proj", "quantizer": {"name": "sqmp", "high_ratio": 0.5, "group_size": 32}})
    if data.draw(st.booleans()):
        rules.insert(1, {"match": "*.0.mlp.gate_proj", "quantizer": None})
    section = QuantizationSection.model_validate({**QUANTIZATION, "weights": rules}, context={"registry": registry})
    before = plan_model(model, weights=section.weights)
    body = [module for module in before.modules if module.params is not None and module.params.name == "sqmp"]
    offered = data.draw(st.lists(st.sampled_from(CHOICES), min_size=1, max_size=4))
    assignment = {
        module.name: candidate_quantizer(data.draw(st.sampled_from(offered)), module.params, registry=registry)
        for module in body
    }
    names = [name for name, _ in registry.adapter_for("qwen3").quantizable(model)]
    written = assigned_section(section, {module.name: module.rule for module in body}, assignment, names)
    planned = plan_model(model, weights=written.weights)
    expected = {module.name: assignment.get(module.name, module.params) for module in before.modules}
    assert {module.name: module.params for module in planned.modules} == expected


def test_layers_that_agree_share_a_glob_and_no_glob_takes_more() -> None:
    names = [f"model.layers.{layer}.mlp.{part}" for layer in range(3) for part in ("up_proj", "down_proj")]
    ups = [name for name in names if "up" in name]
    assert globs(ups, names) == ["model.layers.*.mlp.up_proj"]
    assert globs(ups[:2], names) == ups[:2]
    assert globs([names[1]], [names[1]]) == [names[1]]
