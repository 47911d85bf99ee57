"""`training.start: calibrated`: latent weights that the quantizer rounds to the codes of calibrated rounding."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerazor import load_model, train
from edgerazor.calibrate import start_calibrated
from edgerazor.calibrate.gptq import calibrated_codes
from edgerazor.core.latent_weights import latent_weights, limits
from edgerazor.core.layers.matrices import Matrices, join_rows
from edgerazor.core.registry import Registry
from edgerazor.data import load_data
from edgerazor.errors import PlanError
from edgerazor.models.load import Models, load_student
from edgerazor.schemas.recipe import Recipe, load_recipe
from edgerazor.training.calibrated_start import model_inputs
from tests.calibrate.test_gptq import QUANTIZERS, draw
from tests.plugins.quantizer_cases import build
from tests.runs import recipe

CASES = [
    *QUANTIZERS,
    ("ternary", {"scale": "absmax"}),
    *(("ternary", {"scale_multiplier": multiplier}) for multiplier in (1.5, 3.0)),
    ("sqmp", {"high_ratio": 0.5, "placement": "strided_groups"}),
    ("int", {"bits": 2}),
]


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    case=st.sampled_from(CASES),
    group_size=st.sampled_from([16, 32, 64, None]),
    count=st.sampled_from([1, 2]),
)
def test_the_codes_are_reached_to_the_bit(
    seed: int, case: tuple[str, dict[str, Any]], group_size: Any, count: int
) -> None:
    weight, inputs = draw(seed)
    quantizer = build(case[0], **case[1], group_size=group_size)
    matrices = Matrices.along_last_axis(weight.shape, count)
    codes = join_rows([calibrated_codes(rows, inputs.T @ inputs, quantizer) for rows in weight.split(matrices.heights)])
    latent = latent_weights(codes, weight, quantizer, matrices)
    found = matrices.quantize(quantizer, latent)
    assert torch.equal(found.codes, codes.codes) and torch.equal(found.scale, codes.scale)


@pytest.mark.parametrize("group_size", [16, 32])
@pytest.mark.parametrize(("name", "values"), [case for case in CASES if case[0] in ("ternary", "sqmp")])
def test_groups_of_few_columns_have_a_zero_where_their_quantizer_leaves_one(
    name: str, values: dict[str, Any], group_size: int
) -> None:
    weight, inputs = draw(0, rows=1000)
    quantizer = build(name, **values, group_size=group_size)
    codes = calibrated_codes(weight, inputs.T @ inputs, quantizer)
    found = quantizer.quantize(latent_weights(codes, weight, quantizer, Matrices.along_last_axis(weight.shape)))
    assert torch.equal(found.codes, codes.codes) and torch.equal(found.scale, codes.scale)


@pytest.mark.parametrize("size", [0.0, 1e-6, 1e-5, 1e-4, 4e-4])
@pytest.mark.parametrize("case", [case for case in CASES if case[0] == "int"])
def test_rows_that_are_nearly_zero_have_latent_weights_too(case: tuple[str, dict[str, Any]], size: float) -> None:
    weight, inputs = draw(3, rows=32)
    weight[::4] *= size
    quantizer = build(case[0], **case[1], group_size=32)
    codes = calibrated_codes(weight, inputs.T @ inputs, quantizer)
    found = quantizer.quantize(latent_weights(codes, weight, quantizer, Matrices.along_last_axis(weight.shape)))
    assert torch.equal(found.codes, codes.codes) and torch.equal(found.scale, codes.scale)


@pytest.mark.parametrize(("name", "values"), CASES)
def test_weights_that_have_the_codes_stay_where_they_are(name: str, values: dict[str, Any]) -> None:
    weight, _ = draw(1)
    quantizer = build(name, **values, group_size=32)
    plain = quantizer.quantize(weight)
    latent = latent_weights(plain, weight, quantizer, Matrices.along_last_axis(weight.shape))
    assert torch.equal(latent, weight)
    weight[0] = 0  # a row of zeros keeps its codes
    codes = quantizer.quantize(weight)
    assert not latent_weights(codes, weight, quantizer, Matrices.along_last_axis(weight.shape))[0].any()


@pytest.mark.parametrize(("name", "values"), CASES)
def test_codes_that_change_are_out_of_reach_of_small_steps(name: str, values: dict[str, Any]) -> None:
    weight, inputs = draw(1)
    quantizer = build(name, **values, group_size=32)
    codes = calibrated_codes(weight, inputs.T @ inputs, quantizer)
    changed = codes.codes != quantizer.quantize(weight).codes
    assert changed.any()
    latent = latent_weights(codes, weight, quantizer, Matrices.along_last_axis(weight.shape))
    step = codes.scale.float().repeat_interleave(32, dim=-1)
    noise = 0.1 * step * torch.randn(weight.shape, generator=torch.Generator().manual_seed(2))
    kept = (latent + noise).div(step).round().sub(codes.codes).abs() < 1
    highest = limits(codes.qmax, codes.scale.shape[-1], quantizer)[1].repeat_interleave(32, dim=-1)
    beyond = codes.codes.abs() == highest  # outermost codes have no threshold on one side
    assert float((kept | beyond)[changed].float().mean()) > 0.9


@pytest.mark.parametrize(("name", "values"), CASES)
def test_codes_that_no_weights_have_are_refused(name: str, values: dict[str, Any]) -> None:
    weight, _ = draw(1)
    quantizer = build(name, **values, group_size=32)
    codes = quantizer.quantize(weight)
    # Zeros alone never have such a scale.
    inner = replace(codes, codes=torch.zeros_like(codes.codes), scale=codes.scale + 1)
    with pytest.raises(PlanError, match="rounds no weights to these codes"):
        latent_weights(inner, weight, quantizer, Matrices.along_last_axis(weight.shape))


def run(folder: Path, name: str, registry: Registry, resume: bool = False, **training: Any) -> tuple[Recipe, Any]:
    raw = recipe(folder, training={"start": "calibrated", "start_samples": 3, "save_steps": 1, **training})
    loaded = load_recipe(raw, registry=registry)
    return loaded, train(loaded, registry=registry, output=folder / name, resume=resume)


@pytest.mark.slow
def test_a_run_begins_at_the_codes_and_packs_them(tmp_path: Path, registry: Registry) -> None:
    loaded, result = run(tmp_path, "run", registry, max_steps=1, learning_rate=1e-30)
    models = Models(loaded.model, registry)
    student, plan = load_student(models, loaded)
    plain = {name: value.clone() for name, value in student.state_dict().items()}
    start_calibrated(student, plan, _rows(models, loaded))
    packed: Any = load_model(result.checkpoint, dtype=torch.float32, registry=registry)
    layers = [entry.name for entry in plan.quantized if ".layers." in entry.name]
    assert layers
    for name in layers:
        module: Any = student.get_submodule(name)
        codes = module.weight_quantizer.quantize(module.weight.detach())
        stored = packed.get_submodule(name).quantized()
        assert torch.equal(stored.codes, codes.codes) and torch.equal(stored.scale, codes.scale)
        assert not torch.equal(codes.codes, module.weight_quantizer.quantize(plain[f"{name}.weight"]).codes)


def _rows(models: Models, loaded: Recipe) -> list[torch.Tensor]:
    assert loaded.data is not None
    data = load_data(loaded.data, models.student.tokenizer).train
    return [document for row in range(3) for document in model_inputs(data[row])]


@pytest.mark.slow
def test_a_resumed_run_comes_to_the_same_student(tmp_path: Path, registry: Registry) -> None:
    constant = {"lr_scheduler_type": "constant"}
    _, whole = run(tmp_path, "whole", registry, max_steps=2, **constant)
    run(tmp_path, "half", registry, max_steps=1, **constant)
    (tmp_path / "half" / "packed").rename(tmp_path / "first")
    _, resumed = run(tmp_path, "half", registry, resume=True, max_steps=2, **constant)
    ours, theirs = (load_model(found.checkpoint, registry=registry).state_dict() for found in (whole, resumed))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.slow
def test_accumulation_changes_nothing(tmp_path: Path, registry: Registry) -> None:
    splits = ({"per_device_train_batch_size": 4}, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2})
    runs = [run(tmp_path, f"run{place}", registry, max_steps=1, **split)[1] for place, split in enumerate(splits)]
    assert runs[0].evaluation["eval_loss"] == pytest.approx(runs[1].evaluation["eval_loss"], abs=1e-5)


@pytest.mark.slow
def test_a_recipe_without_quantized_layers_is_refused(tmp_path: Path, registry: Registry) -> None:
    rules = [{"match": ["*.embed_tokens", "lm_head"], "quantizer": {"name": "int", "bits": 4, "group_size": 32}}]
    loaded = load_recipe(recipe(tmp_path, quantization={"weights": rules}), registry=registry)
    student, plan = load_student(Models(loaded.model, registry), loaded)
    with pytest.raises(PlanError, match="start: calibrated"):
        start_calibrated(student, plan, [torch.tensor([[1, 2, 3]])])
