"""Every family, whole: plan, a training step with every loss, packing, and equal logits after reloading."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edgerazor.checkpoint import load_model, verify_checkpoint
from edgerazor.core.contracts import Signal
from edgerazor.core.layers.experts import QuantExperts
from edgerazor.core.outputs import Targets
from edgerazor.core.registry import Registry
from edgerazor.distill import Distiller
from tests.adapters.family_cases import FAMILIES, Family, save_family

families = pytest.mark.parametrize("name", FAMILIES)


@pytest.fixture(scope="module")
def build_family(tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> Callable[[str], Family]:
    """`build_family(name)`: saved once, loaded as often as a test needs."""

    @cache
    def build(name: str) -> Family:
        folder: Path = tmp_path_factory.mktemp(name) / "model"
        save_family(name, folder)
        return Family(name, folder, registry)

    return build


@pytest.mark.slow
@families
def test_the_plan_covers_every_matrix_or_names_it(build_family: Callable[[str], Family], name: str) -> None:
    family = build_family(name)
    model = family.teacher()
    plan = family.plan(model)
    covered = {module.parameter_name for module in plan.quantized}
    matrices = {parameter for parameter, value in model.named_parameters() if value.ndim > 1}
    assert covered | set(plan.matrices_left_out) == matrices and not covered & set(plan.matrices_left_out)
    if name == "omni":
        left = {matrix.split(".")[1] for matrix in plan.matrices_left_out}
        assert left == {"audio_tower", "visual"}
    else:
        assert all(".mlp.gate." in matrix for matrix in plan.matrices_left_out)
    assert bool(plan.matrices_left_out) == bool(plan.notes)
    assert plan.bytes < 2 * plan.parameters


def _loss(registry: Registry, name: str, adapter: Any) -> Any:
    """A loss with a layer choice that two layers can give; None if the family lacks one of its signals."""
    declared: Any = registry.declared("loss", name)
    layers = {"layers": {"name": "fixed", "layers": ["low", "high"]}} if "layers" in declared.model_fields else {}
    built = registry.build(registry.params("loss", name, **layers))
    return built if built.signals <= adapter.signals else None


@pytest.mark.slow
@families
def test_every_loss_it_has_the_signals_for_teaches_it(build_family: Callable[[str], Family], name: str) -> None:
    family = build_family(name)
    registry, adapter = family.registry, family.adapter
    losses = [loss for each in registry.names("loss") if (loss := _loss(registry, each, adapter)) is not None]
    assert losses
    attentions = any(Signal.ATTENTIONS in loss.signals for loss in losses)
    student = family.student(attentions=attentions)
    teacher = family.teacher(attention="eager" if attentions else "sdpa")
    composed = Distiller(losses, task_weight=0.1, adapter=adapter)
    composed.check_models(student.config, teacher.config)
    optimizer = torch.optim.SGD(student.parameters(), lr=1e-3)
    for batch in family.batches().values():
        result = composed(student, teacher, batch, Targets.from_labels(batch["labels"], batch.get("attention_mask")))
        assert bool(torch.isfinite(result.value)) and set(composed.names) <= set(result.shares)
        result.value.backward()
    still = [
        module.parameter_name
        for module in family.plan(family.teacher()).quantized
        if (grad := student.get_parameter(module.parameter_name).grad) is None or not bool(grad.any())
    ]
    assert not still
    before = {key: value.clone() for key, value in family.logits(student).items()}
    optimizer.step()
    assert all(not torch.equal(value, before[key]) for key, value in family.logits(student).items())


@pytest.mark.slow
@families
@pytest.mark.parametrize("compute", ["cached", "packed"])
def test_packed_and_reloaded_it_gives_the_same_logits(
    build_family: Callable[[str], Family], tmp_path: Path, name: str, compute: Any
) -> None:
    family = build_family(name)
    student = family.student()
    family.write(student, tmp_path / "packed")
    loaded = load_model(tmp_path / "packed", compute=compute)
    expected, found = family.logits(student), family.logits(loaded)
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    assert verify_checkpoint(tmp_path / "packed", logits=True).faults == ()
    if compute == "cached":
        loaded.save_pretrained(tmp_path / "again")
        again = family.logits(type(loaded).from_pretrained(tmp_path / "again"))
        assert all(torch.equal(again[key], value) for key, value in expected.items())


@pytest.mark.slow
@families
def test_what_is_promised_is_given(build_family: Callable[[str], Family], name: str) -> None:
    family = build_family(name)
    model, batch = family.teacher(attention="eager"), next(iter(family.batches().values()))
    output = family.adapter.forward(model, batch, family.adapter.signals)
    assert all(getattr(output, signal.value) is not None for signal in family.adapter.signals)
    depth = len(output.hidden_states) - 1
    assert len(output.keys) == len(output.values) == len(output.attentions) == depth
    assert output.keys[0].shape[-1] == 16 and output.keys[0].shape[2] == batch["input_ids"].shape[1]


@families
def test_the_forward_pass_is_the_models_own(build_family: Callable[[str], Family], name: str) -> None:
    family = build_family(name)
    model = family.teacher()
    expected = family.logits(model)
    for kind, batch in family.batches().items():
        with torch.no_grad():
            output = family.adapter.forward(model, batch, {Signal.LOGITS, Signal.KEYS})
        assert torch.equal(output.logits, expected[kind])


def test_without_quantizers_experts_compute_what_they_did(build_family: Callable[[str], Family]) -> None:
    family = build_family("qwen3_moe")
    model, student = family.teacher(), family.student()
    for module in student.modules():
        if isinstance(module, QuantExperts):
            module.weight_quantizers.clear()
            module.input_quantizers.clear()
        elif isinstance(module, nn.Module):
            for attribute in ("weight_quantizer", "input_quantizer", "kv_quantizer"):
                if attribute in module.__dict__ and not isinstance(module, nn.Embedding):
                    module.__dict__[attribute] = None
    student.model.embed_tokens.__class__ = nn.Embedding
    torch.testing.assert_close(family.logits(student)["text"], family.logits(model)["text"], rtol=1e-4, atol=1e-4)
