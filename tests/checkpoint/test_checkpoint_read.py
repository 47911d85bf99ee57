"""What a reader refuses, and that its message says file and key."""

import json
import re
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM

import edgerazor.hf  # noqa: F401 - registers the packed format
from edgerazor.checkpoint import load_model, open_checkpoint
from edgerazor.core.tensor_files import weight_files
from edgerazor.errors import CheckpointError
from tests.packed_cases import edit_json, edit_tensors, make_student


@pytest.fixture(scope="module")
def original(build_model, registry, tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    make_student(build_model, registry, folder).write(folder / "packed")
    return folder


@pytest.fixture
def folder(original, tmp_path):
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    return tmp_path / "packed"


def section(**values):
    return lambda content: content["quantization_config"].update(values)


REFUSED = {
    "newer": (section(format_version=2, edgerazor_version="9.1"), r"format_version: is 2, written by edgerazor 9\.1"),
    "unknown key": (section(compresion="zip"), "has no 'compresion'"),
    "unknown mode": (section(mode="squeezed"), "mode: is 'squeezed'"),
    "other method": (section(quant_method="gptq"), "quant_method: is 'gptq', expected 'edgerazor'"),
    "no section": (lambda content: content.pop("quantization_config"), "not an edgerazor checkpoint"),
    "no layout": (section(layouts={}), "there is no layout 'i4-g32'"),
    "unknown tie": (section(tied={"lm_head": "model.embed"}), r"tied\.lm_head: there is no module 'model\.embed'"),
    "bad layout": (
        lambda content: content["quantization_config"]["layouts"]["i4-g32"].update(storage=["i3"]),
        r"layouts\.i4-g32\.storage",
    ),
    "rows of one kind": (
        lambda content: content["quantization_config"]["modules"]["model.embed_tokens"].update(wide_rows=3),
        r"modules\.model\.embed_tokens: wide_rows is 3, layout has 1 kinds of rows",
    ),
    "guard": (section(guard="lm_head.weight"), "guard: 'lm_head.weight' is not the weight of a packed module"),
    "layout key": (
        lambda content: content["quantization_config"]["layouts"]["i4-g32"].update(zero_point=8),
        "layout has no 'zero_point'",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_malformed_configuration_is_refused(what, folder):
    edit, message = REFUSED[what]
    edit_json(folder / "config.json", edit)
    with pytest.raises(CheckpointError, match=message) as error:
        open_checkpoint(folder)
    assert "config.json: quantization_config" in str(error.value)


@pytest.mark.parametrize("what", ["newer", "unknown key", "no layout"])
def test_from_pretrained_refuses_too(what, folder):
    edit, message = REFUSED[what]
    edit_json(folder / "config.json", edit)
    with pytest.raises(CheckpointError, match=message):
        AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize("key", ["activations", "kv_cache"])
def test_a_quantizer_of_a_missing_plugin_is_named(key, folder):
    edit_json(folder / "config.json", section(**{key: {"name": "acme.fp4", "group_size": 32}}))
    message = rf"quantization_config\.{key}: no quantizer named 'acme\.fp4'; no plugin 'acme' is installed"
    with pytest.raises(CheckpointError, match=message):
        load_model(folder)


def test_bad_parameters_of_a_quantizer_are_named(folder):
    edit_json(folder / "config.json", section(activations={"name": "int", "bitz": 8}))
    with pytest.raises(CheckpointError, match=r"quantization_config\.activations: [\s\S]*has no 'bitz'"):
        load_model(folder)


def test_a_checkpoint_without_manifest_is_unfinished(folder):
    (folder / "edgerazor.json").unlink()
    with pytest.raises(CheckpointError, match=r"edgerazor\.json: is missing, so this folder is not a finished"):
        load_model(folder)


def test_a_newer_manifest_is_refused(folder):
    edit_json(folder / "edgerazor.json", lambda content: content.update(format_version=3))
    with pytest.raises(CheckpointError, match=r"edgerazor\.json: format_version: is 3"):
        open_checkpoint(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "README.md"])
def test_a_missing_or_shortened_file_is_named(name, folder):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-10])
    with pytest.raises(CheckpointError, match=rf"{name}: has {len(content) - 10} bytes, edgerazor\.json says"):
        open_checkpoint(folder)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=rf"{name}: is missing"):
        open_checkpoint(folder)


def test_from_pretrained_names_a_file_that_is_cut_off(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: is cut off"):
        AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize(
    "name", ["model.layers.0.mlp.up_proj.weight_t5", "model.embed_tokens.weight_scale", "model.norm.weight"]
)
def test_a_missing_tensor_is_an_error_never_random_numbers(name, folder):
    edit_tensors(folder, lambda tensors: tensors.pop(name))
    for load in (load_model, AutoModelForCausalLM.from_pretrained):
        with pytest.raises(CheckpointError, match=f"{re.escape(name)}: is missing"):
            load(folder)


def test_a_tensor_of_another_shape_is_an_error(folder):
    name = "model.layers.0.mlp.up_proj.weight_i4"
    edit_tensors(folder, lambda tensors: tensors.update({name: tensors[name][:-1].clone()}))
    for load in (load_model, AutoModelForCausalLM.from_pretrained):
        with pytest.raises(
            CheckpointError, match=r"up_proj\.weight_i4: is uint8 \[11, 32\], expected uint8 \[12, 32\]"
        ):
            load(folder)


def test_a_tensor_of_another_dtype_is_an_error(folder):
    name = "model.layers.0.mlp.up_proj.weight_scale"
    edit_tensors(folder, lambda tensors: tensors.update({name: tensors[name].float()}))
    for load in (load_model, AutoModelForCausalLM.from_pretrained):
        with pytest.raises(CheckpointError, match=r"up_proj\.weight_scale: is float32 .*, expected float16 "):
            load(folder)


@pytest.mark.parametrize("load", [load_model, AutoModelForCausalLM.from_pretrained])
def test_a_packed_tensor_that_belongs_to_no_module_is_an_error(load, folder):
    name = "model.layers.7.mlp.up_proj.weight_scale"
    edit_tensors(folder, lambda tensors: tensors.update({name: torch.zeros(2, 2, dtype=torch.float16)}))
    with pytest.raises(CheckpointError, match=rf"{re.escape(name)}: belongs to no packed module"):
        load(folder)


def test_shards_outside_the_folder_are_not_followed(folder):
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    index = {"weight_map": {"model.norm.weight": "../model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"index\.json: weight_map: '\.\./model\.safetensors' is not the name"):
        weight_files(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": NaN', "\x80"])
def test_damaged_json_is_named(text, folder):
    (folder / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError, match=r"config\.json: "):
        open_checkpoint(folder)


def test_other_folders_are_told_apart(folder, tmp_path):
    with pytest.raises(CheckpointError, match="there is no such folder"):
        open_checkpoint(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="not an edgerazor checkpoint"):
        open_checkpoint(tmp_path / "float")
    with pytest.raises(CheckpointError, match="compute: is 'fast', expected one of cached, packed"):
        load_model(folder, compute="fast")


def test_a_packed_model_is_not_a_base_model(folder):
    from transformers import AutoModel

    with pytest.raises(CheckpointError, match="AutoModelForCausalLM"):
        AutoModel.from_pretrained(folder)


def test_scales_survive_as_float16(folder):
    assert open_checkpoint(folder).read("model.embed_tokens.weight").scale.dtype == torch.float16
