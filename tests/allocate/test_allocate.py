"""From recipe to allocated recipe: never larger than uniform, never worse by its own measure, the same every time."""

import pytest
import torch

from edgerazor.allocate import AllocationSettings, allocate
from edgerazor.errors import DataError, PlanError, RecipeError
from edgerazor.models.load import plan_recipe
from edgerazor.schemas.recipe import load_recipe
from tests.commands import fail, succeed
from tests.families import family_model
from tests.runs import quantization, recipe, tokenizer, write_recipe

pytestmark = pytest.mark.slow

SQMP = {"name": "sqmp", "high_ratio": 0.125, "group_size": 32}


@pytest.fixture
def content(tmp_path):
    return recipe(tmp_path, quantization=quantization(SQMP), evaluation={"batches": 1, "batch_size": 2})


def settings(**values):
    return AllocationSettings(**{"target_bits": 1.88, "batches": 2, "measure": False, **values})


@pytest.mark.slow
@pytest.mark.parametrize("mode", [{}, {"free": True}, {"rows": True}], ids=str)
@pytest.mark.parametrize("target", [1.88, 2.0, 2.79])
def test_it_is_no_larger_than_uniform_and_no_worse_by_its_own_measure(content, registry, mode, target):
    found = allocate(load_recipe(content, registry=registry), settings(target_bits=target, **mode), registry=registry)
    assert found.allocated.bits <= found.target
    if target != 2.0:
        assert found.uniform.bits >= found.target and found.allocated.bytes <= found.uniform.bytes + 64
    plan = plan_recipe(found.recipe, registry=registry)
    body = [module for module in plan.modules if "layers" in module.name]
    weights = sum(module.weights for module in body)
    assert found.allocated.bits == pytest.approx(sum(module.weights * module.nominal_bits for module in body) / weights)
    assert found.allocated.bytes == plan.bytes
    if not mode.get("rows"):
        assert found.allocated.predicted <= found.uniform.predicted


def test_the_same_recipe_gives_the_same_allocation(content, registry):
    loaded = load_recipe(content, registry=registry)
    first, second = (allocate(loaded, settings(), registry=registry) for _ in range(2))
    assert first.recipe == second.recipe
    assert first.allocated == second.allocated


def test_tied_matrices_get_one_quantizer(content, registry):
    found = allocate(load_recipe(content, registry=registry), settings(target_bits=2.5), registry=registry)
    params = {module.name: module.params for module in plan_recipe(found.recipe, registry=registry).modules}
    for layer in ("model.layers.0", "model.layers.1"):
        assert len({params[f"{layer}.self_attn.{part}_proj"] for part in "qkv"}) == 1
        assert params[f"{layer}.mlp.gate_proj"] == params[f"{layer}.mlp.up_proj"]
    assert params["model.embed_tokens"].name == "int"


def test_other_candidates_and_those_that_do_not_fit(content, registry):
    loaded = load_recipe(content, registry=registry)
    wanted = ("ternary", "int3", "{name: int, bits: 4, group_size: 64}")
    found = allocate(loaded, settings(candidates=wanted), registry=registry)
    assert {module.params.name for module in plan_recipe(found.recipe, registry=registry).modules} <= {"int", "ternary"}
    assert any("down_proj" in note and "96 columns" in note for note in found.notes)
    with pytest.raises(PlanError, match=r"narrowest candidates that fit take 3\.0000 bits"):
        allocate(loaded, settings(candidates=("int3",)), registry=registry)
    with pytest.raises(PlanError, match="96 columns"):
        allocate(loaded, settings(candidates=("{name: ternary, group_size: 64}",)), registry=registry)


def test_without_data_there_is_nothing_to_measure_on(content, registry):
    with pytest.raises(DataError, match="no data section"):
        allocate(load_recipe({**content, "data": None}, registry=registry), settings(), registry=registry)
    with pytest.raises(RecipeError, match=r"ternary matrices have 1\.58 bits"):
        allocate(load_recipe(content, registry=registry), settings(target_bits=1.0), registry=registry)


@pytest.mark.slow
def test_without_held_out_data_it_measures_on_rows_it_has_not_seen(content, registry):
    content["data"]["held_out"] = None
    found = allocate(load_recipe(content, registry=registry), settings(measure=True, batches=1), registry=registry)
    assert found.allocated.measured.kl_teacher > 0 and found.uniform.measured.kl_teacher > 0
    assert any("no data is held out" in note for note in found.notes)
    assert allocate(
        load_recipe(content, registry=registry), settings(measure=True, batches=10**6), registry=registry
    ).notes == ["nothing was measured: no data is held out, and the sensitivities took all rows"]


@pytest.mark.slow
def test_the_command_writes_a_recipe_that_packs(tmp_path, content, registry):
    path, out = write_recipe(tmp_path / "recipe.yaml", content), tmp_path / "allocated.yaml"
    shown = succeed("allocate", path, "--target-bits", 1.88, "--rows", "--batches", 1, "--output", out)
    assert "1/8 everywhere" in shown and "measured KL" in shown
    written = load_recipe(out, registry=registry)
    assert written.preset is None and written.data == load_recipe(path, registry=registry).data
    packed = tmp_path / "packed"
    succeed("pack", content["model"]["name_or_path"], "--recipe", out, "--output", packed)
    assert "ok" in succeed("verify", packed)


def test_the_command_says_what_is_wrong(tmp_path, content):
    path = write_recipe(tmp_path / "recipe.yaml", content)
    assert "no quantizer named 'x'" in fail("allocate", path, "--target-bits", 2, "--candidate", "{name: x}")
    assert "leave --candidate out" in fail("allocate", path, "--target-bits", 2, "--candidate", "int4", "--rows")
    elsewhere = tmp_path / "no" / "x.yaml"
    assert "x.yaml: cannot be written: there is no folder" in fail(
        "allocate", path, "--target-bits", 2, "--output", elsewhere
    )


@pytest.mark.parametrize("mode", [{}, {"rows": True}], ids=str)
def test_fused_matrices_are_priced_as_they_are_quantized(tmp_path, registry, mode):
    """q, k and v in one: a body of int, whose rows are independent, is allocated sqmp that counts inside each part."""
    body = {"name": "int", "bits": 4, "group_size": 32}
    content = recipe(tmp_path, quantization=quantization(body), evaluation={"batches": 1, "batch_size": 2})
    words = tokenizer()
    family_model("phi4-mini", vocab_size=len(words)).to(torch.bfloat16).save_pretrained(tmp_path / "model")
    words.save_pretrained(tmp_path / "model")
    found = allocate(load_recipe(content, registry=registry), settings(target_bits=2.5, **mode), registry=registry)
    plan = plan_recipe(found.recipe, registry=registry)
    body_of_plan = [module for module in plan.modules if "layers" in module.name]
    weights = sum(module.weights for module in body_of_plan)
    bits = sum(module.weights * module.nominal_bits for module in body_of_plan) / weights
    assert found.allocated.bits == pytest.approx(bits)
