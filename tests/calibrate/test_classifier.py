"""Calibrated rounding of image classifiers: the rows are those of the product, and logits come closer."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import AutoModelForImageClassification

from edgerazor.calibrate import pack_calibrated, start_calibrated
from edgerazor.calibrate.classifier import calibration_pictures, round_classifier
from edgerazor.checkpoint import load_model, pack_model
from edgerazor.core.layers.table import kind_named
from edgerazor.core.registry import Registry
from edgerazor.models.load import Models, load_student
from edgerazor.models.source import ModelSource
from edgerazor.schemas.data import DataSection
from edgerazor.schemas.recipe import load_recipe
from tests.commands import succeed
from tests.data.pictures import save_folder
from tests.plugins.quantizer_cases import build
from tests.training.test_image_runs import save_teacher


@settings(max_examples=40)
@given(
    places=st.sampled_from([1, 2]),
    kernel=st.sampled_from([1, 2, 3]),
    stride=st.sampled_from([1, 2]),
    dilation=st.sampled_from([1, 2]),
    padding=st.sampled_from([0, 1, "same"]),
    mode=st.sampled_from(["zeros", "reflect", "circular"]),
)
def test_a_convolution_is_the_product_of_its_rows(
    places: int, kernel: int, stride: int, dilation: int, padding: Any, mode: str
) -> None:
    stride = 1 if padding == "same" else stride
    torch.manual_seed(0)
    kind: Any = nn.Conv1d if places == 1 else nn.Conv2d
    layer = kind(4, 6, kernel, stride, padding, dilation, padding_mode=mode, bias=False)
    conv = kind_named("conv")
    conv.make_trainable(layer, build("int", bits=8, group_size=None), build("int", bits=8, group_size=4), None)
    x = torch.randn(2, 4, *[7] * places)
    with torch.no_grad():
        expected = layer(x).flatten(2).transpose(1, 2).reshape(-1, 6)
        rows = conv.product_rows(layer, x)
        assert rows is not None
        values = layer.weight_quantizer.fake_quantize(layer.weight.flatten(1))
    torch.testing.assert_close(rows @ values.T, expected, rtol=1e-5, atol=1e-5)


def test_a_convolution_in_groups_is_not_one_product() -> None:
    layer: Any = nn.Conv2d(4, 4, 3, groups=2)
    conv = kind_named("conv")
    conv.make_trainable(layer, build("int", bits=8, group_size=None), None, None)
    assert conv.product_rows(layer, torch.randn(1, 4, 5, 5)) is None


@pytest.mark.parametrize("name", ["vit", "resnet"])
@pytest.mark.parametrize("body", [{"name": "int", "bits": 3}, {"name": "sqmp", "high_ratio": 0.125}])
def test_it_is_closer_than_rounding(name: str, body: dict[str, Any], registry: Registry, tmp_path: Path) -> None:
    # Weights of the usual start are so small that logits hardly depend on them.
    changes = {"initializer_range": 0.2} if name == "vit" else {}
    teacher, pictures = save_teacher(name, tmp_path / "model", **changes), save_folder(tmp_path / "pictures", 24)
    int8 = {"name": "int", "bits": 8, "group_size": 32}
    rules = [{"match": "*", "quantizer": {**body, "group_size": 32}}]
    section = {"weights": rules, "activations": int8, "fit": ["weights"]}
    recipe = load_recipe({"model": {"name_or_path": teacher}, "quantization": section}, registry=registry)
    data = _section(pictures)
    pack_model(recipe, registry=registry, output=tmp_path / "rounded")
    first = pack_calibrated(recipe, registry=registry, output=tmp_path / "calibrated", data=data, samples=40)
    again = pack_calibrated(recipe, registry=registry, output=tmp_path / "again", data=data, samples=40)
    assert first.digest == again.digest
    reference = AutoModelForImageClassification.from_pretrained(teacher, dtype=torch.float32)
    source = _pictures(teacher, data, registry)

    def distance(folder: Path) -> float:
        model: Any = load_model(folder, dtype=torch.float32, registry=registry)
        with torch.no_grad():
            difference = model(pixel_values=source).logits - reference(pixel_values=source).logits
        return float(difference.square().mean())

    assert distance(tmp_path / "calibrated") < distance(tmp_path / "rounded")


def _section(pictures: Path) -> DataSection:
    return DataSection.model_validate({"task": "image_classification", "sources": str(pictures)})


def _pictures(teacher: str, data: DataSection, registry: Registry) -> torch.Tensor:
    return torch.cat(calibration_pictures(ModelSource(teacher, registry=registry), data, 48))


def test_the_command(tmp_path: Path) -> None:
    teacher, pictures = save_teacher("resnet", tmp_path / "model"), save_folder(tmp_path / "pictures", 4)
    succeed("pack", teacher, "--preset", "4-bit", "--calibrate", pictures, "--samples", 4, "--output", tmp_path / "out")
    succeed("verify", tmp_path / "out")


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_a_student_begins_at_the_codes(name: str, registry: Registry, tmp_path: Path) -> None:
    teacher, pictures = save_teacher(name, tmp_path / "model"), save_folder(tmp_path / "pictures", 4)
    raw = {"model": {"name_or_path": teacher}, "preset": "1.58-bit", "distillation": None}
    recipe = load_recipe(raw, registry=registry)
    rows = list(_pictures(teacher, _section(pictures), registry).split(1))
    student, plan = load_student(Models(recipe.model, registry), recipe)
    codes = round_classifier(student, plan, rows)
    again, _ = load_student(Models(recipe.model, registry), recipe)
    start_calibrated(again, plan, rows)
    assert len(codes) == len(plan.quantized)
    for entry in plan.quantized:
        found = kind_named(entry.kind).codes(kind_named(entry.kind).find(again, entry.name))
        assert torch.equal(found.codes, codes[entry.name].codes)
        assert torch.equal(found.scale, codes[entry.name].scale)
