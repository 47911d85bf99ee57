"""`unsigned_int`: all codes where nothing is negative, those of `int` elsewhere, the same in training and packed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerazor.checkpoint import load_model
from edgerazor.checkpoint.write import write_checkpoint
from edgerazor.core.registry import Registry
from edgerazor.errors import PlanError
from edgerazor.models.load import Models, load_student
from edgerazor.schemas.recipe import Recipe, load_recipe
from tests.plugins.quantizer_cases import build
from tests.training.test_image_runs import save_teacher


@settings(max_examples=60)
@given(seed=st.integers(0, 2**31), bits=st.integers(2, 8), size=st.sampled_from([16, None]), scale=st.floats(1e-7, 1e4))
def test_each_group_is_rounded_by_its_own_rule(seed: int, bits: int, size: Any, scale: float) -> None:
    x = torch.randn(6, 32, generator=torch.Generator().manual_seed(seed)) * scale
    x[::2] = x[::2].relu()
    found = build("unsigned_int", bits=bits, group_size=size).quantize(x)
    of_int = build("int", bits=bits, group_size=size, scale_dtype="float32").quantize(x)
    groups, codes = x.reshape(6, -1, found.group_size), found.codes.reshape(6, -1, found.group_size)
    for row in range(6):
        for group in range(groups.shape[1]):
            values, own = groups[row, group], found.scale[row, group]
            if bool((values >= 0).all()):
                levels = 2**bits - 1
                torch.testing.assert_close(own, values.max().clamp_min(1e-5) / levels)
                assert torch.equal(codes[row, group], (values / own).round().clamp(0, levels).to(torch.int16))
                assert int(codes[row, group].min()) >= 0
            else:
                assert torch.equal(own, of_int.scale[row, group])
                assert torch.equal(codes[row, group], of_int.codes.reshape(codes.shape)[row, group].to(torch.int16))


def test_behind_a_relu_the_error_is_half() -> None:
    x = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)).relu()
    errors = [
        float((build(name, bits=8, group_size=64, scale_dtype="float32").fake_quantize(x) - x).square().mean() ** 0.5)
        for name in ("unsigned_int", "int")
    ]
    assert errors[0] < 0.55 * errors[1]


def recipe_of(teacher: str, registry: Registry, **quantization: Any) -> Recipe:
    section = {
        "weights": [{"match": "*", "quantizer": {"name": "int", "bits": 4, "group_size": 32}}],
        "activations": {"name": "unsigned_int", "bits": 8, "group_size": 32},
        "fit": ["weights", "activations"],
        **quantization,
    }
    return load_recipe({"model": {"name_or_path": teacher}, "quantization": section}, registry=registry)


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_training_and_the_packed_model_compute_the_same(name: str, registry: Registry, tmp_path: Path) -> None:
    recipe = recipe_of(save_teacher(name, tmp_path / "teacher"), registry)
    student: Any
    student, plan = load_student(Models(recipe.model, registry), recipe)
    pixels = torch.randn(3, 1, *[8 if name == "vit" else 32] * 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        trained = student.eval()(pixel_values=pixels).logits
    write_checkpoint(student, tmp_path / "packed", recipe=recipe, plan=plan, tokenizer=None, registry=registry)
    packed: Any = load_model(tmp_path / "packed", dtype=torch.float32, registry=registry)
    with torch.no_grad():
        assert torch.equal(packed(pixel_values=pixels).logits, trained)
    student.train()(pixel_values=pixels).logits.sum().backward()
    assert all(value.grad is not None for value in student.parameters())


def test_weights_are_refused(registry: Registry, tmp_path: Path) -> None:
    teacher = save_teacher("vit", tmp_path / "teacher")
    rules = [{"match": "*", "quantizer": {"name": "unsigned_int", "bits": 4, "group_size": 16}}]
    recipe = recipe_of(teacher, registry, weights=rules)
    with pytest.raises(PlanError, match=r"quantization\.weights: \*: unsigned_int is for activations alone"):
        load_student(Models(recipe.model, registry), recipe)
