"""compressed-tensors folders, written by the package itself, become packed checkpoints of the same values."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from edgerazor.checkpoint import load_model, open_checkpoint, pack_model
from edgerazor.core.registry import Registry
from edgerazor.errors import CheckpointError
from edgerazor.export.export import export_to
from edgerazor.importers import import_folder
from edgerazor.importers.words import unpack_words
from edgerazor.schemas.recipe import load_recipe
from tests.commands import fail
from tests.importers.foreign import GROUP, edit_config, edit_weights, symmetric_codes, write_folder
from tests.runs import save_model

pytest.importorskip("compressed_tensors")
from compressed_tensors.compressors.base import BaseCompressor
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from compressed_tensors.quantization import QuantizationScheme

pytestmark = pytest.mark.slow
Q = "model.layers.0.self_attn.q_proj"
TOKENS = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}
COMPRESSOR: Any = BaseCompressor.get_value_from_registry("pack-quantized")


def scheme(bits: int, **weights: Any) -> dict[str, Any]:
    usual = {"num_bits": bits, "type": "int", "symmetric": True, "strategy": "group", "group_size": GROUP}
    return {"targets": ["Linear"], "weights": {**usual, **weights}}


def section(bits: int, inputs: Any = None, **weights: Any) -> dict[str, Any]:
    group = {**scheme(bits, **weights), "input_activations": inputs, "format": "pack-quantized"}
    return {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0": group}}


def compressed(name: str, weight: Tensor, bits: int, strategy: str) -> dict[str, Tensor]:
    """What the package makes of one matrix."""
    codes, scale = symmetric_codes(weight, bits, torch.bfloat16)
    if strategy == "channel":
        scale = scale.amax(dim=-1, keepdim=True)
        codes = torch.round(weight.float() / scale.float()).to(torch.int8)
    value = (codes.float().unflatten(-1, (scale.shape[1], -1)) * scale.float().unsqueeze(-1)).flatten(-2).bfloat16()
    size = {"group_size": GROUP} if strategy == "group" else {"group_size": None}
    packed = COMPRESSOR.compress(
        {"weight": value, "weight_scale": scale},
        QuantizationScheme(**scheme(bits, strategy=strategy, **size)),
    )
    return {f"{name}.{part}": tensor for part, tensor in packed.items()}


def folder_of(path: Path, bits: int = 4, strategy: str = "group", inputs: Any = None) -> Path:
    return write_folder(
        path,
        section(bits, inputs, strategy=strategy),
        lambda name, weight: compressed(name, weight, bits, strategy),
        num_hidden_layers=1,
    )


@pytest.mark.parametrize(("bits", "strategy"), [(4, "group"), (4, "channel"), (8, "group"), (2, "group"), (3, "group")])
def test_every_value_is_what_the_package_reads(bits: int, strategy: str, registry: Registry, tmp_path: Path) -> None:
    source = folder_of(tmp_path / "foreign", bits, strategy)
    import_folder(source, registry=registry, output=tmp_path / "packed")
    stored = load_file(source / "model.safetensors")
    model: Any = load_model(tmp_path / "packed", dequantize=True, dtype=torch.bfloat16)
    found = model.state_dict()
    size = {"group_size": GROUP} if strategy == "group" else {"group_size": None}
    rule = QuantizationScheme(**scheme(bits, strategy=strategy, **size))
    modules = [name.removesuffix(".weight_packed") for name in stored if name.endswith(".weight_packed")]
    assert len(modules) == 7
    for module in modules:
        parts = {name.removeprefix(f"{module}."): stored[name] for name in stored if name.startswith(f"{module}.")}
        assert torch.equal(found[f"{module}.weight"], COMPRESSOR.decompress(parts, rule)["weight"].bfloat16())
    assert all(torch.equal(found[name], value) for name, value in stored.items() if name in found)


def test_activations_come_along_where_a_recipe_can_say_them(registry: Registry, tmp_path: Path) -> None:
    import_folder(folder_of(tmp_path / "a", inputs=TOKENS), registry=registry, output=tmp_path / "packed")
    activations = open_checkpoint(tmp_path / "packed").recipe["quantization"]["activations"]
    assert (activations["name"], activations["bits"], activations["group_size"]) == ("int", 8, None)
    static = {**TOKENS, "dynamic": False, "strategy": "tensor"}
    result = import_folder(folder_of(tmp_path / "b", inputs=static), registry=registry, output=tmp_path / "other")
    assert any("they stay 16 bit here" in note for note in result.notes)
    assert open_checkpoint(tmp_path / "other").recipe["quantization"]["activations"] is None


@settings(max_examples=25)
@given(st.data())
def test_words_are_those_of_the_package(data: st.DataObject) -> None:
    bits, rows = data.draw(st.integers(2, 8)), data.draw(st.integers(1, 4))
    columns = data.draw(st.sampled_from([32, 64, 96, 160]))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32 - 1)))
    half = 2 ** (bits - 1)
    codes = torch.randint(-half, half, (rows, columns), generator=generator).to(torch.int8)
    found = unpack_words(pack_to_int32(codes, bits), bits, columns)
    assert torch.equal(found.to(torch.int16) - half, codes.to(torch.int16))


def zero_points(tensors: dict[str, Tensor]) -> None:
    tensors[f"{Q}.weight_zero_point"] = torch.zeros(8, 2, dtype=torch.int32)


def another_shape(tensors: dict[str, Tensor]) -> None:
    tensors[f"{Q}.weight_shape"] = torch.tensor([64, 32])


def no_rows(tensors: dict[str, Tensor]) -> None:
    tensors[f"{Q}.weight_packed"] = tensors[f"{Q}.weight_packed"][1:]


def another_name(tensors: dict[str, Tensor]) -> None:
    for name in [name for name in tensors if name.startswith(Q)]:
        tensors[name.replace("q_proj", "p_proj")] = tensors.pop(name)


def lost_norm(tensors: dict[str, Tensor]) -> None:
    del tensors["model.norm.weight"]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (zero_points, f"{Q}.weight_zero_point: zero points have no place in a packed checkpoint"),
        (another_shape, f"{Q}.weight: is [64, 32]; the model of config.json has [64, 64]"),
        (no_rows, f"{Q}.weight_packed: int32 [63, 8] are no 64 rows of 64 columns in 2 to 8 bits"),
        (another_name, "self_attn.p_proj.weight: the model of config.json has none; did you mean 'model.layers.0."),
        (lost_norm, "tensors are missing: model.norm.weight"),
    ],
)
def test_what_cannot_be_held_is_named(edit: Any, said: str, registry: Registry, tmp_path: Path) -> None:
    source = folder_of(tmp_path / "foreign")
    edit_weights(source, edit)
    with pytest.raises(CheckpointError) as raised:
        import_folder(source, registry=registry, output=tmp_path / "packed")
    assert said in str(raised.value) and ".importing" not in str(raised.value)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({**section(4), "format": "float-quantized"}, "quantization_config.format: is float-quantized; of compressed"),
        (section(4, symmetric=False), "config_groups.group_0.weights: expected symmetric integers"),
        (section(4, actorder="group"), "config_groups.group_0.weights.actorder: is 'group'; expected none"),
        ({"quant_method": "compressed-tensors"}, "quantization_config.config_groups: expected schemes by name"),
        ({"quant_method": "edgerazor"}, "is a checkpoint of edgerazor already; there is nothing to import"),
    ],
)
def test_other_schemes_are_one_line_and_exit_code_two(config: dict[str, Any], said: str, tmp_path: Path) -> None:
    source = folder_of(tmp_path / "foreign")
    edit_config(source, quantization_config=config)
    message = fail("import", source, "--output", tmp_path / "packed")
    assert said in message and message.count("\n") == 1


@pytest.mark.parametrize(
    "quantizer",
    [
        {"name": "ternary"},
        {"name": "sqmp", "high_ratio": 0.25},
        {"name": "int", "bits": 4},
        {"name": "int", "bits": 4, "symmetric": False, "scale": "signed_absmax"},
    ],
)
def test_our_own_export_comes_back_with_its_digest(quantizer: Any, registry: Registry, tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", num_hidden_layers=1, tie_word_embeddings=False)
    rules = [{"match": "*.layers.*", "quantizer": {**quantizer, "group_size": 32}}]
    recipe = load_recipe({"model": {"name_or_path": str(model)}, "quantization": {"weights": rules}}, registry=registry)
    first = pack_model(recipe, registry=registry, output=tmp_path / "packed")
    export_to(tmp_path / "packed", "compressed-tensors", tmp_path / "folder", registry=registry)
    again = import_folder(tmp_path / "folder", registry=registry, output=tmp_path / "again")
    assert again.digest == first.digest
