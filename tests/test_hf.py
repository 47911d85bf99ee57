"""transformers reads, writes and refuses our checkpoints; every trap of its loader that was met is a test here."""

import copy
import importlib
import subprocess
import sys
import textwrap

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import edgerazor.hf
from edgerazor.checkpoint import pack_model, qat_config
from edgerazor.core.layers.embedding import QuantEmbedding
from edgerazor.core.layers.linear import QuantLinear
from edgerazor.core.layers.packed import PackedWeight
from edgerazor.core.tensor_files import read_headers, weight_files
from edgerazor.errors import CheckpointError
from edgerazor.hf import EdgeRazorConfig
from edgerazor.schemas.recipe import load_recipe
from tests.packed_cases import logits, make_student

pytestmark = pytest.mark.slow

LOAD = AutoModelForCausalLM.from_pretrained


@pytest.fixture(scope="module", params=["tied", "untied", "rows-of-two-kinds"])
def packed(request, build_model, registry, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    student = make_student(build_model, registry, folder, request.param)
    student.write(folder / "packed")
    return folder / "packed", student


def report(folder, **options):
    model, loaded = LOAD(folder, output_loading_info=True, **options)
    return model, {key: value for key, value in loaded.items() if value}


def test_a_load_reports_nothing_and_gives_the_student(packed):
    folder, student = packed
    model, loaded = report(folder)
    assert loaded == {}
    assert torch.equal(logits(model), logits(student.model))
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("size", ["50GB", "10KB"])
def test_a_saved_copy_loads_as_the_same_model(size, packed, tmp_path):
    folder, student = packed
    LOAD(folder).save_pretrained(tmp_path / "copy", max_shard_size=size)
    assert (tmp_path / "copy" / "model.safetensors.index.json").exists() == (size == "10KB")
    model, loaded = report(tmp_path / "copy")
    assert loaded == {}
    assert torch.equal(logits(model), logits(student.model))
    before, after = AutoConfig.from_pretrained(folder), AutoConfig.from_pretrained(tmp_path / "copy")
    assert before.quantization_config == after.quantization_config
    # The guard is among them: without it the copy would load as random numbers where the package is missing.
    assert set(read_headers(weight_files(tmp_path / "copy"))) == set(read_headers(weight_files(folder)))


def test_a_saved_copy_holds_packed_tensors_after_a_forward_pass(packed, tmp_path):
    folder, _ = packed
    model = LOAD(folder)
    logits(model)
    model.save_pretrained(tmp_path / "copy")
    original = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert sum(path.stat().st_size for path in (tmp_path / "copy").glob("*.safetensors")) <= 1.2 * original


def test_loading_in_bfloat16_equals_casting_all_but_the_rotary_frequencies(packed):
    folder, _ = packed
    model, cast = LOAD(folder, dtype=torch.bfloat16), LOAD(folder)
    frequencies = cast.model.rotary_emb.inv_freq.clone()
    cast.to(torch.bfloat16).model.rotary_emb.inv_freq = frequencies
    assert model.dtype == torch.bfloat16 and model.model.rotary_emb.inv_freq.dtype == torch.float32
    packed = [module for module in model.modules() if isinstance(module, PackedWeight)]
    assert packed and all(module.weight_scale.dtype == torch.float16 for module in packed)
    assert torch.equal(logits(model), logits(cast))


def test_a_quantization_config_given_for_a_packed_folder_changes_nothing(packed):
    folder, student = packed
    with pytest.warns(UserWarning, match="already has a `quantization_config`"):
        model = LOAD(folder, quantization_config=EdgeRazorConfig(mode="qat", dequantize=True))
    assert torch.equal(logits(model), logits(student.model))


@pytest.mark.parametrize("cast", [lambda model: model.to(torch.bfloat16), lambda model: model.bfloat16()])
def test_casting_a_model_keeps_its_scales(cast, packed):
    folder, _ = packed
    model = LOAD(folder)
    logits(model)
    scales = {name: value.clone() for name, value in model.named_buffers() if name.endswith("weight_scale")}
    model = cast(model)
    for name, scale in scales.items():
        assert model.get_buffer(name).dtype == torch.float16 and torch.equal(model.get_buffer(name), scale)
    embedding = model.get_input_embeddings()
    assert embedding(torch.tensor([1])).dtype == torch.bfloat16
    assert torch.equal(embedding.weight, embedding.quantized().dequantize(torch.bfloat16))


def test_a_cast_there_and_back_changes_no_weight(packed):
    folder, _ = packed
    model = LOAD(folder)
    before = {name: module.weight.clone() for name, module in model.named_modules() if isinstance(module, PackedWeight)}
    model.to(torch.bfloat16).to(torch.float32)
    assert all(torch.equal(model.get_submodule(name).weight, weight) for name, weight in before.items())


def test_a_deep_copy_is_independent(packed):
    folder, student = packed
    model = LOAD(folder)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, PackedWeight):
                module.weight_scale.zero_()
                module.cached_weight = None
    assert torch.equal(logits(twin), logits(student.model))


def test_the_model_dtype_is_not_that_of_the_scales(packed):
    folder, _ = packed
    model = LOAD(folder)
    assert model.dtype == torch.float32
    assert not any(value.dtype == torch.float16 for value in model.parameters())


def test_tying_again_does_no_harm(packed):
    folder, student = packed
    model = LOAD(folder)
    model.tie_weights()
    assert torch.equal(logits(model), logits(student.model))


def test_dequantize_gives_an_ordinary_model_that_saves_as_one(packed, tmp_path):
    folder, _ = packed
    model = LOAD(folder).dequantize()
    model.save_pretrained(tmp_path / "float")
    assert not hasattr(AutoConfig.from_pretrained(tmp_path / "float"), "quantization_config")
    plain, loaded = report(tmp_path / "float")
    assert loaded == {}
    assert torch.equal(logits(plain), logits(model))
    assert model.config._attn_implementation == "sdpa"


def test_weights_after_training_and_after_packing_are_equal(packed):
    folder, student = packed
    model = LOAD(folder).dequantize()
    for entry in student.plan.quantized:
        module = student.model.get_submodule(entry.name)
        trained = module.weight_quantizer.fake_quantize(module.weight)
        assert torch.equal(model.get_submodule(entry.name).weight, trained)


def test_eager_attention_is_quantized_too(build_model, registry, tmp_path):
    student = make_student(build_model, registry, tmp_path)
    student.write(tmp_path / "packed")
    model = LOAD(tmp_path / "packed", attn_implementation="eager")
    assert model.config._attn_implementation == "edgerazor_eager"
    torch.testing.assert_close(logits(model), logits(student.model))


def test_importing_again_registers_once():
    importlib.reload(edgerazor.hf)
    assert edgerazor.hf.EdgeRazorConfig is EdgeRazorConfig


@pytest.mark.subprocess
def test_without_the_package_loading_fails_and_with_it_a_fresh_process_agrees(build_model, registry, tmp_path):
    student, folder = make_student(build_model, registry, tmp_path), tmp_path / "packed"
    student.write(folder)
    torch.save(logits(student.model), tmp_path / "expected.pt")
    code = f"""
    import sys
    sys.path.insert(0, {str(__file__.rsplit("/", 1)[0])!r})
    from transformers import AutoModelForCausalLM
    try:
        AutoModelForCausalLM.from_pretrained({str(folder)!r})
    except RuntimeError as error:
        print("refused", "mismatch" in str(error).lower())
    assert "edgerazor" not in sys.modules
    import edgerazor.hf, torch
    from tests.packed_cases import logits
    model = AutoModelForCausalLM.from_pretrained({str(folder)!r})
    print(torch.equal(logits(model), torch.load({str(tmp_path / "expected.pt")!r})))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["refused", "True", "True"], done.stderr[-2000:]


@pytest.fixture(params=["tied", "untied"])
def trained(request, build_model, registry, tmp_path):
    student = make_student(build_model, registry, tmp_path, request.param)
    student.model.config.quantization_config = qat_config(student.recipe, student.plan, registry=registry)
    student.model.save_pretrained(tmp_path / "latent")
    return tmp_path / "latent", student


def test_a_student_in_training_loads_as_one(trained, tmp_path):
    folder, student = trained
    model, loaded = report(folder)
    assert loaded == {}
    assert torch.equal(logits(model), logits(student.model))
    kinds = {type(model.get_submodule(entry.name)) for entry in student.plan.quantized}
    assert kinds == {QuantLinear, QuantEmbedding}
    model.save_pretrained(tmp_path / "again")
    assert torch.equal(logits(LOAD(tmp_path / "again")), logits(student.model))


def test_a_student_in_training_can_be_trained_by_trainer(trained, tmp_path):
    from transformers import Trainer, TrainingArguments

    folder, _ = trained
    model = LOAD(folder)
    before = logits(model)
    rows = [{"input_ids": torch.arange(9), "labels": torch.arange(9)}] * 2
    arguments = TrainingArguments(
        str(tmp_path / "run"), max_steps=1, learning_rate=1e-2, report_to=[], use_cpu=True, disable_tqdm=True
    )
    Trainer(model=model, args=arguments, train_dataset=rows).train()
    assert not torch.equal(logits(model), before)
    resumed = LOAD(tmp_path / "run" / "checkpoint-1")
    assert torch.equal(logits(resumed), logits(model))


def test_a_packed_model_is_not_trainable(packed):
    from transformers import Trainer, TrainingArguments

    folder, _ = packed
    with pytest.raises(ValueError, match="purely quantized"):
        Trainer(model=LOAD(folder), args=TrainingArguments("unused", report_to=[], use_cpu=True))


def test_latent_weights_of_a_run_are_packed_with_its_own_recipe(trained, registry, tmp_path):
    folder, student = trained
    model_section = {"name_or_path": str(folder)}
    recipe = load_recipe({**student.recipe.to_dict(), "model": model_section}, registry=registry)
    pack_model(recipe, registry=registry, output=tmp_path / "packed")
    assert torch.equal(logits(LOAD(tmp_path / "packed")), logits(student.model))
    other = {"weights": [{"match": "*", "quantizer": {"name": "ternary", "group_size": 32}}]}
    recipe = load_recipe({"model": model_section, "quantization": other}, registry=registry)
    with pytest.raises(CheckpointError, match="trained with other quantizers"):
        pack_model(recipe, registry=registry, output=tmp_path / "other")


def test_a_recipe_that_quantizes_other_modules_is_refused(trained, registry):
    folder, student = trained
    config = qat_config(student.recipe, student.plan, registry=registry)
    config.content["modules"].remove("model.layers.0.mlp.up_proj")
    student.model.config.quantization_config = config
    student.model.save_pretrained(folder)
    with pytest.raises(CheckpointError, match=r"the same modules any more: model\.layers\.0\.mlp\.up"):
        LOAD(folder)


@pytest.mark.parametrize("case", ["tied", "untied"])
def test_a_float_folder_is_quantized_on_the_fly(case, build_model, registry, tmp_path):
    student = make_student(build_model, registry, tmp_path, case)
    source = student.recipe.model.name_or_path
    expected = make_student(build_model, registry, tmp_path, case, rounded=False)
    qat = LOAD(source, quantization_config=EdgeRazorConfig(mode="qat", recipe=student.recipe))
    assert torch.equal(logits(qat), logits(expected.model))
    qat.save_pretrained(tmp_path / "latent")
    stored = AutoConfig.from_pretrained(tmp_path / "latent").quantization_config
    assert stored == qat_config(student.recipe, student.plan, registry=registry).to_dict()
    packed = LOAD(source, quantization_config=EdgeRazorConfig(mode="packed", recipe=student.recipe.to_dict()))
    assert torch.equal(logits(packed), logits(expected.model))
    packed.save_pretrained(tmp_path / "saved")
    assert torch.equal(logits(LOAD(tmp_path / "saved")), logits(expected.model))


def test_quantizing_on_the_fly_needs_a_mode(build_model, registry, tmp_path):
    student = make_student(build_model, registry, tmp_path)
    with pytest.raises(CheckpointError, match="to quantize a 16-bit model give mode"):
        LOAD(student.recipe.model.name_or_path, quantization_config=EdgeRazorConfig(recipe=student.recipe))
