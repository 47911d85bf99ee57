"""Where recipes and files differ from the original release (METHOD 10, F16, F19, F22, converter, size, silence)."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from edgerazor.checkpoint import open_checkpoint, pack_model
from edgerazor.core.registry import Registry
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import CheckpointError, RecipeError
from edgerazor.schemas.model import ModelSection
from edgerazor.schemas.preset import preset_names
from edgerazor.schemas.recipe import Recipe, load_recipe
from tests.packed_cases import make_student

FOLDER = Path(__file__).parents[2] / "recipes"


def preset(registry: Registry, family: str, name: str) -> Recipe:
    return load_recipe({"model": {"name_or_path": "x", "family": family}, "preset": name}, registry=registry)


@pytest.mark.parametrize("name", preset_names())
def test_f16_every_preset_quantizes_weights_activations_and_the_cache(
    name: str, registry: Registry, build_model: Any, plan_model: Any
) -> None:
    sizes = {"weights": 32, "activations": 32, "kv_cache": 16}
    content = {"model": {"name_or_path": "x", "family": "llama"}, "preset": {"name": name, "group_sizes": sizes}}
    section = load_recipe(content, registry=registry).quantization
    plan = plan_model(build_model("llama"), **section.model_dump())
    assert plan.coverage > 0.98
    for slot in (section.activations, section.kv_cache):
        assert slot is not None and slot.model_dump()["bits"] == 8
    body = [module for module in plan.quantized if ".layers." in module.name]
    found = sum(module.weights * module.nominal_bits for module in body) / sum(module.weights for module in body)
    named = float(name.removeprefix("edgerazor-").partition("-")[0])
    # Keys and values of a mixed preset have eight bits, which the bits in its name leave out.
    least, most = (0.0, 0.6) if name.endswith("-mixed") else (-0.2, 0.2)
    assert named + least <= found <= named + most


def test_f19_every_recipe_of_the_repository_loads(registry: Registry) -> None:
    loaded = {path.stem: load_recipe(path, registry=registry) for path in sorted(FOLDER.glob("*.yaml"))}
    assert len(loaded) >= 13
    assert all(recipe.quantization and recipe.distillation and recipe.data for recipe in loaded.values())


@pytest.mark.parametrize(
    ("family", "sizes"), [("qwen3", (256, 256, 128)), ("mobilellm", (64, 64, 64)), ("qwen2_5_omni", (32, 32, 32))]
)
def test_f22_one_name_takes_the_sizes_of_the_family(
    family: str, sizes: tuple[int, int, int], registry: Registry
) -> None:
    section = preset(registry, family, "4-bit").quantization
    assert section.activations is not None and section.kv_cache is not None
    found = {rule.quantizer.group_size for rule in section.weights if rule.quantizer is not None}
    assert (*found, section.activations.group_size, section.kv_cache.group_size) == sizes
    for name in (f"{family}-4-bit", "4-bit-g64", "w4-a8-kv8"):
        with pytest.raises(RecipeError, match=f"no preset named '{name}'"):
            preset(registry, family, name)


def test_silence_misspelt_keys_and_sections_are_refused_with_the_nearest_name(registry: Registry) -> None:
    content = {
        "model": {"name_or_path": "x"},
        "quantisation": {},
        "quantization": {"weights": [{"match": "*", "quantizer": {"name": "int", "bits": 4, "group_sise": 32}}]},
    }
    with pytest.raises(RecipeError) as caught:
        load_recipe(content, registry=registry)
    assert caught.value.problems == [
        "recipe: quantization.weights[0].quantizer: quantizer 'int' has no 'group_sise'; did you mean 'group_size'?",
        "recipe: the recipe has no 'quantisation'; did you mean 'quantization'?",
    ]


@pytest.fixture(scope="module")
def packed(build_model: Any, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A student and its packed checkpoint."""
    folder = tmp_path_factory.mktemp("differences")
    student = make_student(build_model, registry, folder)
    student.write(folder / "packed")
    return student, folder / "packed"


def test_converter_the_type_of_what_is_read_says_whether_it_is_quantized(packed: tuple[Any, Path]) -> None:
    """Quantized weights come as the codes of training, the others as numbers; there is nothing to convert."""
    student, folder = packed
    opened = open_checkpoint(folder)
    model: nn.Module = student.model
    quantized = {f"{module.name}.weight": module for module in student.plan.quantized}
    for name in opened.names():
        stored = opened.read(name)
        assert isinstance(stored, QuantizedTensor if name in quantized else Tensor)
        if isinstance(stored, QuantizedTensor):
            module: Any = model.get_submodule(quantized[name].name)
            expected = module.weight_quantizer.quantize(module.weight.detach())
            assert torch.equal(stored.codes, expected.codes) and torch.equal(stored.qmax, expected.qmax)


def test_converter_what_is_quantized_already_is_refused(packed: tuple[Any, Path], registry: Registry) -> None:
    student, folder = packed
    recipe = student.recipe.model_copy(update={"model": ModelSection(name_or_path=str(folder))})
    with pytest.raises(CheckpointError, match="is already quantized"):
        pack_model(recipe, registry=registry, output=folder.parent / "twice")


def test_size_a_checkpoint_takes_the_bytes_that_its_bits_need(packed: tuple[Any, Path]) -> None:
    student, folder = packed
    tensors = load_file(folder / "model.safetensors")
    stored = sum(tensor.numel() * tensor.itemsize for tensor in tensors.values())
    bits = sum(module.weights * module.effective_bits for module in student.plan.quantized)
    unquantized = 2 * sum(student.plan.rest.values())
    assert stored <= 1.1 * (bits / 8 + unquantized) < 0.3 * 2 * student.plan.parameters
