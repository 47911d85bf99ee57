"""What a packed checkpoint holds: exactly the codes and scales of training, at the size the plan promised."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Qwen3Config

from edgerazor.checkpoint import count_constant_groups, open_checkpoint, round_unquantized_
from edgerazor.checkpoint.section import layout_name
from edgerazor.checkpoint.storage import narrowest
from edgerazor.core.layers.matrices import Matrices
from edgerazor.core.packing import content_digest
from edgerazor.core.plan import build_plan
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import CheckpointError
from edgerazor.schemas.recipe import load_recipe
from tests.packed_cases import CASES, make_student

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("case", CASES)
def test_every_weight_is_what_the_quantizer_gave(case, build_model, registry, tmp_path):
    student = make_student(build_model, registry, tmp_path, case)
    report = student.write(tmp_path / "packed")
    opened = open_checkpoint(tmp_path / "packed", registry=registry)
    contents = []
    for entry in sorted(student.plan.quantized, key=lambda module: module.name):
        module = student.model.get_submodule(entry.name)
        expected = module.weight_quantizer.quantize(module.weight.detach())
        stored = opened.read(f"{entry.name}.weight")
        assert isinstance(stored, QuantizedTensor)
        assert torch.equal(stored.codes, expected.codes)
        assert torch.equal(stored.scale, expected.scale)
        assert torch.equal(stored.qmax, expected.widest_qmax())
        contents.append((entry.name, expected))
    assert report.digest == opened.digest == content_digest(contents)


@pytest.mark.parametrize("case", ["tied", "untied", "one-scale-a-row", "mlp-only"])
def test_other_tensors_keep_name_and_value(case, build_model, registry, tmp_path):
    student = make_student(build_model, registry, tmp_path, case)
    student.write(tmp_path / "packed")
    opened = open_checkpoint(tmp_path / "packed")
    quantized = {f"{entry.name}.weight" for entry in student.plan.quantized}
    rest = dict(student.model.named_parameters()).keys() - quantized
    assert set(opened.names()) == quantized | rest
    for name in rest:
        stored = opened.read(name)
        assert stored.dtype in (torch.bfloat16, torch.float32)
        assert torch.equal(stored.float(), student.model.get_parameter(name))


def test_tensors_take_the_bytes_of_the_plan(build_model, registry, tmp_path):
    student = make_student(build_model, registry, tmp_path)
    student.write(tmp_path / "packed")
    tensors = load_file(tmp_path / "packed" / "model.safetensors")
    guard = tensors.pop("model.embed_tokens.weight")
    assert guard.dtype == torch.uint8 and guard.shape == (1,)
    assert sum(tensor.numel() * tensor.itemsize for tensor in tensors.values()) == student.plan.bytes
    assert not any(name.startswith("lm_head") for name in tensors)


@pytest.mark.parametrize(("preset", "megabytes"), [("1.58-bit", 170.7), ("1.88-bit", 187.3), ("4-bit", 302.8)])
def test_a_model_of_600_million_weights_takes_the_megabytes_promised(preset, megabytes, registry):
    """By the plan, whose bytes the test before this one holds to those of a file."""
    shape = {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "vocab_size": 151936}
    heads = {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": True}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(Qwen3Config(**shape, **heads))
    raw = {"model": {"name_or_path": "unused", "family": "qwen3"}, "preset": preset}
    quantization = load_recipe(raw, registry=registry).quantization
    plan = build_plan(model, quantization, adapter=registry.adapter_for("qwen3"), registry=registry)
    assert plan.bytes / 1e6 == pytest.approx(megabytes, abs=0.1)


def test_config_describes_every_module(build_model, registry, tmp_path):
    student = make_student(build_model, registry, tmp_path)
    student.write(tmp_path / "packed")
    config = json.loads((tmp_path / "packed" / "config.json").read_text())
    section = config["quantization_config"]
    assert section["format_version"] == 1 and section["mode"] == "packed"
    assert section["layouts"] == {
        "i4-g32": {"storage": ["i4"], "qmax": [7], "group_size": 32},
        "t5-i4-g32": {"storage": ["t5", "i4"], "qmax": [1, 7], "group_size": 32},
    }
    assert section["modules"]["model.embed_tokens"] == {"layout": "i4-g32"}
    assert section["modules"]["model.layers.0.mlp.up_proj"] == {"layout": "t5-i4-g32", "wide_rows": 12}
    assert section["tied"] == {"lm_head": "model.embed_tokens"}
    assert section["activations"]["scale_dtype"] == "float32"
    assert load_recipe(section["recipe"], registry=registry).quantization == student.recipe.quantization
    assert section["recipe"]["written_by"]["edgerazor"] == section["edgerazor_version"]
    assert config["dtype"] == "float32" and config["architectures"] == ["Qwen3ForCausalLM"]


def test_layout_names_tell_widths_apart(build_model, registry, tmp_path):
    student = make_student(build_model, registry, tmp_path, "widths-3-and-8")
    student.write(tmp_path / "packed")
    section = open_checkpoint(tmp_path / "packed").section
    assert {layout_name(section.layout(name)) for name in section.modules} == set(section.layouts)
    assert set(section.layouts) == {"i4q3-g32", "i8-g16"}


def test_manifest_and_card(build_model, registry, tmp_path):
    student = make_student(build_model, registry, tmp_path)
    report = student.write(tmp_path / "packed", evaluation={"eval_loss": 1.25})
    manifest = open_checkpoint(tmp_path / "packed").manifest
    assert manifest.evaluation == {"eval_loss": 1.25}
    assert manifest.base_model["name_or_path"] == student.recipe.model.name_or_path
    assert manifest.bits_per_weight.nominal == pytest.approx(student.plan.nominal_bits)
    assert set(report.files) == {*manifest.files, "edgerazor.json"}
    assert report.bytes == sum(path.stat().st_size for path in (tmp_path / "packed").iterdir())
    card = (tmp_path / "packed" / "README.md").read_text()
    assert "import edgerazor.hf" in card.splitlines()[3] and "| eval_loss | 1.25 |" in card


def test_roles_come_from_the_family(build_model, registry, tmp_path):
    make_student(build_model, registry, tmp_path).write(tmp_path / "packed")
    opened = open_checkpoint(tmp_path / "packed", registry=registry)
    assert opened.role("model.layers.1.mlp.down_proj.weight").kind == "down"
    assert opened.role("model.embed_tokens.weight").kind == "embedding"
    with pytest.raises(CheckpointError, match=r"down_proj\.wight.*did you mean 'model\.layers\.1\.mlp\.down_proj"):
        opened.read("model.layers.1.mlp.down_proj.wight")


def test_float32_values_that_no_16_bit_float_holds_are_kept_and_named(build_model, registry, tmp_path):
    student = make_student(build_model, registry, tmp_path, rounded=False)
    report = student.write(tmp_path / "packed")
    assert "model.norm.weight" in report.wide_tensors
    assert any("model.norm.weight" in note for note in report.notes)
    stored = open_checkpoint(tmp_path / "packed").read("model.norm.weight")
    assert torch.equal(stored, student.model.model.norm.weight)


def test_narrowest_is_exact():
    assert narrowest(torch.tensor([1.0, 1 + 2**-7])).dtype == torch.bfloat16
    assert narrowest(torch.tensor([1 + 2**-10])).dtype == torch.float16
    assert narrowest(torch.tensor([1 + 2**-20])).dtype == torch.float32


def test_rounding_leaves_latent_weights_alone(build_model, registry, tmp_path):
    student = make_student(build_model, registry, tmp_path, rounded=False)
    before = {name: value.clone() for name, value in student.model.named_parameters()}
    round_unquantized_(student.model, torch.float16)
    latent = {f"{entry.name}.weight" for entry in student.plan.quantized}
    for name, value in student.model.named_parameters():
        assert value.dtype == torch.float32
        assert torch.equal(value, before[name] if name in latent else before[name].half().float())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(value, build_model, registry, tmp_path):
    student = make_student(build_model, registry, tmp_path)
    with torch.no_grad():
        student.model.model.layers[1].mlp.up_proj.weight[3, 5] = value
        student.model.model.norm.weight[0] = value
    with pytest.raises(CheckpointError) as error:
        student.write(tmp_path / "packed")
    assert "model.layers.1.mlp.up_proj.weight" in str(error.value) and "model.norm.weight" in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["float"]


def test_float32_scales_are_refused(build_model, registry, tmp_path):
    rules = [{"match": "*", "quantizer": {"name": "int", "bits": 4, "group_size": 32, "scale_dtype": "float32"}}]
    student = make_student(build_model, registry, tmp_path, weights=rules)
    with pytest.raises(CheckpointError, match=r"embed_tokens\.weight: scales are float32"):
        student.write(tmp_path / "packed")


def test_a_model_without_quantizers_is_refused(build_model, registry, tmp_path):
    student = make_student(build_model, registry, tmp_path)
    student.model = build_model()
    with pytest.raises(CheckpointError, match=r"model\.embed_tokens: Embedding has no quantizer; apply the plan"):
        student.write(tmp_path / "packed")


def test_groups_of_constant_magnitude_are_counted(build_model, registry, tmp_path):
    rules = [{"match": "*", "quantizer": {"name": "ternary", "group_size": 32}}]
    student = make_student(build_model, registry, tmp_path, weights=rules)
    weight = student.model.model.layers[0].mlp.gate_proj.weight
    with torch.no_grad():
        weight[0, :32] = 0.25 * torch.tensor([1.0, -1.0]).repeat(16)
        weight[1, :32] = 0.0
    report = student.write(tmp_path / "packed")
    assert report.constant_groups == {"model.layers.0.mlp.gate_proj": 1}
    assert any("gate_proj: 1 groups" in note and "absmax" in note for note in report.notes)
    absmax = registry.build(registry.params("quantizer", "ternary", group_size=32, scale="absmax"))
    assert count_constant_groups(weight.detach(), absmax.quantize(weight.detach())) == 0


@pytest.mark.parametrize("name", ["int", "ternary", "sqmp"])
def test_rows_quantized_in_blocks_give_the_same_bits(name, registry):
    values = {"int": {"bits": 4}, "ternary": {}, "sqmp": {"high_ratio": 0.25}}[name]
    quantizer = registry.build(registry.params("quantizer", name, group_size=16, **values))
    weight = torch.randn(37, 64, generator=torch.Generator().manual_seed(0))
    matrix = Matrices.along_last_axis(weight.shape)
    whole, parts = quantizer.quantize(weight), matrix.quantize_in_parts(quantizer, weight, weights_at_once=5 * 64)
    assert torch.equal(whole.codes, parts.codes) and torch.equal(whole.scale, parts.scale)
    assert torch.equal(whole.qmax, parts.qmax) and whole.group_size == parts.group_size


def test_the_tokenizer_is_saved(build_model, registry, tmp_path):
    from tokenizers import Tokenizer, models
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a")))
    make_student(build_model, registry, tmp_path).write(tmp_path / "packed", tokenizer=tokenizer)
    assert AutoTokenizer.from_pretrained(tmp_path / "packed").get_vocab() == {"a": 0, "b": 1}
    assert "tokenizer.json" in open_checkpoint(tmp_path / "packed").manifest.files
    assert Path(tmp_path / "packed" / "generation_config.json").exists()
