"""`training.scale_learning_rate`: scales of the decoder's matrices that are trained beside the weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerazor import load_model, train
from edgerazor.checkpoint import pack_model
from edgerazor.checkpoint.section import MANIFEST
from edgerazor.core.learned_scales import LearnedScales
from edgerazor.core.registry import Registry
from edgerazor.errors import CheckpointError, PlanError
from edgerazor.schemas.recipe import Recipe, load_recipe
from tests.calibrate.test_gptq import QUANTIZERS, draw
from tests.plugins.quantizer_cases import build
from tests.runs import recipe

SIGNED = ("int", {"bits": 4, "symmetric": False, "scale": "signed_absmax"})
CASES = [*QUANTIZERS, ("int", {"bits": 2, "symmetric": False}), SIGNED, ("ternary", {"scale": "absmax"})]


def learned(seed: int, case: tuple[str, dict[str, Any]], group_size: int | None) -> tuple[Any, Any, torch.Tensor]:
    """A quantizer, the same with trained scales, and a weight."""
    weight, _ = draw(seed)
    quantizer = build(case[0], **case[1], group_size=group_size)
    return quantizer, LearnedScales(quantizer, quantizer.quantize(weight)), weight


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31), case=st.sampled_from(CASES), group_size=st.sampled_from([16, 32, None]))
def test_before_training_it_is_the_quantizer_to_the_bit(seed: int, case: Any, group_size: int | None) -> None:
    quantizer, scales, weight = learned(seed, case, group_size)
    plain, found = quantizer.quantize(weight), scales.quantize(weight)
    for part in ("codes", "scale", "qmax"):
        assert torch.equal(getattr(found, part), getattr(plain, part))


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31), case=st.sampled_from(CASES), spread=st.floats(-2, 3))
def test_whatever_the_factors_codes_fit_and_scales_can_be_stored(seed: int, case: Any, spread: float) -> None:
    quantizer, scales, weight = learned(seed, case, 32)
    with torch.no_grad():
        scales.factors += spread * torch.randn(scales.factors.shape, generator=torch.Generator().manual_seed(seed))
    found = scales.quantize(weight)
    highest = found.qmax.reshape(len(found.qmax), -1).expand(-1, found.scale.shape[1]).repeat_interleave(32, dim=1)
    assert bool((found.codes <= highest).all() and (found.codes >= -highest - int(not quantizer.symmetric)).all())
    assert bool(torch.isfinite(found.scale).all() and (found.scale.abs() >= 2.0**-14).all())
    assert torch.equal(found.scale.sign().float(), scales.start.sign())
    assert torch.equal(scales.fake_quantize(weight), found.dequantize(weight.dtype))


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**31),
    case=st.sampled_from(CASES),
    scale_dtype=st.sampled_from(["float16", "float16_bfloat16"]),
    special=st.sampled_from([0.0, float("nan"), float("inf")]),
)
def test_codes_are_the_rounded_quotients_in_training_and_export(
    seed: int, case: Any, scale_dtype: str, special: float
) -> None:
    """A group of zeros, infinities or NaN, too: a NaN is a code of 0, and its group keeps its scale."""
    weight, _ = draw(seed)
    quantizer = build(case[0], **case[1], group_size=16, scale_dtype=scale_dtype)
    scales = LearnedScales(quantizer, quantizer.quantize(weight))
    with torch.no_grad():
        scales.factors.mul_(0.3 + torch.rand(scales.factors.shape, generator=torch.Generator().manual_seed(seed)))
    weight[1, :16] = special
    found, value = scales.quantize_dequantize(weight)
    scale = found.scale.float()
    highest = found.qmax.float().reshape(len(found.qmax), -1, 1)
    steps = (weight.reshape(*scale.shape, 16) / scale.unsqueeze(-1)).round().nan_to_num(0.0, 1e9, -1e9)
    codes = torch.minimum(torch.maximum(steps, -highest - int(not quantizer.symmetric)), highest)
    assert torch.equal(found.codes, codes.reshape(weight.shape).to(torch.int8))
    assert scale_dtype == "float16" or torch.equal(scale.bfloat16().float(), scale)
    assert torch.equal(value, found.dequantize(weight.dtype)) and torch.equal(value, scales.fake_quantize(weight))
    assert torch.equal(found.codes, scales.quantize(weight).codes)


def test_the_gradient_is_that_of_the_published_formula() -> None:
    """One group by hand: inside the range code - x / scale, outside the outermost code."""
    quantizer = build("int", bits=3, group_size=4)
    scales = LearnedScales(quantizer, quantizer.quantize(torch.tensor([[3.0, 1.2, -0.4, 0.9]])))  # scale 1
    weight, gradient = torch.tensor([[5.0, 1.2, -0.4, -7.0]]), torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    scales.set_gradient(weight, gradient)
    assert scales.factors.grad is not None
    expected = 1.0 * 3 + 2.0 * (1 - 1.2) + 3.0 * (0 + 0.4) + 4.0 * -3
    torch.testing.assert_close(scales.factors.grad, torch.tensor([[expected]]))


def run(folder: Path, name: str, registry: Registry, resume: bool = False, **training: Any) -> tuple[Recipe, Any]:
    values = {"scale_learning_rate": 0.02, "save_steps": 1, "lr_scheduler_type": "constant", **training}
    loaded = load_recipe(recipe(folder, training=values), registry=registry)
    return loaded, train(loaded, registry=registry, output=folder / name, resume=resume)


def state(result: Any, registry: Registry) -> dict[str, torch.Tensor]:
    return load_model(result.checkpoint, registry=registry).state_dict()  # type: ignore[no-any-return]


@pytest.mark.slow
def test_latent_weights_and_scales_of_a_checkpoint_pack_to_what_the_run_packed(
    tmp_path: Path, registry: Registry
) -> None:
    loaded, _ = run(tmp_path, "run", registry, max_steps=2)
    latent = tmp_path / "run" / "checkpoints" / "checkpoint-2"
    again = loaded.model_copy(update={"model": loaded.model.model_copy(update={"name_or_path": str(latent)})})
    packed = pack_model(again, registry=registry, output=tmp_path / "packed")
    assert packed.digest == pack_digest(tmp_path / "run" / "packed")
    run(tmp_path, "plain", registry, max_steps=2, scale_learning_rate=None)
    assert packed.digest != pack_digest(tmp_path / "plain" / "packed")
    (latent / "learned_scales.safetensors").unlink()
    with pytest.raises(CheckpointError, match="learned_scales"):
        pack_model(again, registry=registry, output=tmp_path / "another")


def pack_digest(folder: Path) -> str:
    return json.loads((folder / MANIFEST).read_text())["content_sha256"]  # type: ignore[no-any-return]


@pytest.mark.slow
def test_a_resumed_run_comes_to_the_same_student(tmp_path: Path, registry: Registry) -> None:
    _, whole = run(tmp_path, "whole", registry, max_steps=3)
    run(tmp_path, "half", registry, max_steps=1)
    (tmp_path / "half" / "packed").rename(tmp_path / "first")
    _, resumed = run(tmp_path, "half", registry, resume=True, max_steps=3)
    ours, theirs = state(whole, registry), state(resumed, registry)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.slow
def test_accumulation_changes_nothing(tmp_path: Path, registry: Registry) -> None:
    splits = ({"per_device_train_batch_size": 4}, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2})
    plain = {"optim": "sgd", "learning_rate": 0.01, "scale_learning_rate": 0.05}  # Adam's first step is a sign
    runs = [
        run(tmp_path, f"run{place}", registry, max_steps=2, **plain, **split)[1] for place, split in enumerate(splits)
    ]
    assert runs[0].evaluation["eval_loss"] == pytest.approx(runs[1].evaluation["eval_loss"], abs=1e-5)


def test_a_recipe_without_matrices_of_decoder_layers_is_refused(tmp_path: Path, registry: Registry) -> None:
    raw = recipe(tmp_path, training={"scale_learning_rate": 0.01, "max_steps": 1})
    raw["quantization"]["weights"] = raw["quantization"]["weights"][:1]  # of embedding and head
    with pytest.raises(PlanError, match="scale_learning_rate: the recipe quantizes no matrix of a decoder layer"):
        train(load_recipe(raw, registry=registry), registry=registry, output=tmp_path / "run")
