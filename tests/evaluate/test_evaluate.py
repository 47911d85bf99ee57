"""Held-out figures are sums over tokens: they do not depend on how rows are batched."""

import math

import pytest
import torch
from torch.nn import functional

from edgerazor.checkpoint import pack_model
from edgerazor.core.outputs import Targets
from edgerazor.core.registry import Component, Registry
from edgerazor.data import Collator, load_data
from edgerazor.distill import Distiller
from edgerazor.errors import CheckpointError, DataError, PlanError
from edgerazor.evaluate.checkpoints import evaluate_checkpoint, evaluate_model
from edgerazor.schemas.data import DataSection
from edgerazor.schemas.recipe import load_recipe
from tests.runs import quantization, save_data, save_model, tokenizer

pytestmark = pytest.mark.slow


@pytest.fixture
def dataset(tmp_path):
    section = DataSection(sources=[{"path": str(save_data(tmp_path / "data.jsonl"))}], sequence_length=48)
    return load_data(section, tokenizer()).train


@pytest.mark.slow
def test_figures_are_what_they_say(build_model, registry, dataset):
    student, teacher = build_model(seed=1, vocab_size=320), build_model(seed=2, vocab_size=320)
    result = evaluate_model(student, teacher, dataset, adapter=registry.adapter_for("qwen3"), batch_size=3)
    total, theirs, divergence, agreed, count, text_bytes = 0.0, 0.0, 0.0, 0, 0, 0
    for row in dataset:
        ids, positions = torch.tensor([row["input_ids"]]), torch.tensor([row["position_ids"]])
        with torch.no_grad():
            z, u = (
                model(input_ids=ids, position_ids=positions, use_cache=False).logits[0, :-1].double()
                for model in (student, teacher)
            )
        labels = torch.tensor(row["labels"][1:])
        kept = labels != -100
        lq, lp = z.log_softmax(-1)[kept], u.log_softmax(-1)[kept]
        total += float(functional.nll_loss(lq, labels[kept], reduction="sum"))
        theirs += float(functional.nll_loss(lp, labels[kept], reduction="sum"))
        divergence += float((lp.exp() * (lp - lq)).sum())
        agreed += int((lq.argmax(-1) == lp.argmax(-1)).sum())
        count += int(kept.sum())
        text_bytes += row["label_bytes"]
    assert result.tokens == count
    assert result.loss == pytest.approx(total / count, rel=1e-5)
    assert result.teacher_loss == pytest.approx(theirs / count, rel=1e-5)
    assert result.loss_gap == result.loss - result.teacher_loss
    assert result.kl_teacher == pytest.approx(divergence / count, rel=1e-4)
    assert result.top1_agreement == pytest.approx(agreed / count)
    assert result.bits_per_byte == pytest.approx(total / math.log(2) / text_bytes, rel=1e-5)


def test_batching_does_not_matter(build_model, registry, dataset):
    model, adapter = build_model(vocab_size=320), registry.adapter_for("qwen3")
    one, many = (evaluate_model(model, None, dataset, adapter=adapter, batch_size=size) for size in (1, 16))
    assert one.loss == pytest.approx(many.loss, rel=1e-5)
    assert one.tokens == many.tokens
    assert one.kl_teacher is one.teacher_loss is one.loss_gap is None


def test_a_teacher_agrees_with_itself(build_model, registry, dataset):
    model = build_model(vocab_size=320)
    result = evaluate_model(model, model, dataset, adapter=registry.adapter_for("qwen3"), batches=2)
    assert result.kl_teacher == pytest.approx(0.0, abs=1e-6)
    assert result.top1_agreement == 1.0


def test_training_and_evaluation_take_the_same_logits_under_autocast(build_model, registry, dataset):
    model, adapter = build_model(vocab_size=320), registry.adapter_for("qwen3")
    rows = [dataset[row] for row in range(3)]
    batch = Collator(0)(rows)
    plain = evaluate_model(model, None, rows, adapter=adapter)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = evaluate_model(model, None, rows, adapter=adapter)
        trained = Distiller([], task_weight=1.0, adapter=adapter)(
            model, None, batch, Targets.from_labels(batch["labels"])
        )
    assert result.loss == pytest.approx(float(trained.value.detach()), rel=1e-6)
    assert result.loss != plain.loss


@pytest.fixture
def pack(tmp_path, registry):
    """`pack(**model)`: a packed checkpoint whose recipe names that model, and data to evaluate it on."""

    def pack(**model):
        content = {"model": {"name_or_path": str(save_model(tmp_path / "model")), **model}}
        recipe = load_recipe({**content, "quantization": quantization()}, registry=registry)
        pack_model(recipe, registry=registry, output=tmp_path / "packed")
        data = save_data(tmp_path / "data.jsonl")
        return tmp_path / "packed", DataSection(sources=[{"path": str(data)}], sequence_length=48)

    return pack


@pytest.mark.slow
def test_a_teacher_that_is_gone_is_noted_and_one_that_was_asked_for_is_an_error(tmp_path, pack, registry):
    folder, data = pack()
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    result = evaluate_checkpoint(folder, registry=registry, data=data)
    assert result.loss > 0 and result.kl_teacher is None and result.top1_agreement is None
    assert len(result.notes) == 1 and str(tmp_path / "model") in result.notes[0]
    assert "notes" not in result.to_dict()
    with pytest.raises(CheckpointError, match=r"nowhere: no usable config\.json"):
        evaluate_checkpoint(folder, registry=registry, data=data, teacher=str(tmp_path / "nowhere"))
    found = evaluate_checkpoint(folder, registry=registry, data=data, teacher=str(tmp_path / "elsewhere"))
    assert found.kl_teacher > 0 and found.notes == () and found.loss == result.loss


def test_a_teacher_with_another_vocabulary_is_refused(tmp_path, pack, registry):
    folder, data = pack()
    other = str(save_model(tmp_path / "other", vocabulary=400))
    with pytest.raises(PlanError, match="other: has a vocabulary of 400 tokens, the checkpoint 320"):
        evaluate_checkpoint(folder, registry=registry, data=data, teacher=other)


def test_a_recipe_does_not_lead_into_its_checkpoint(tmp_path, pack, registry):
    folder, data = pack(teacher=str(tmp_path / "packed" / "teacher"))
    save_model(folder / "teacher")
    result = evaluate_checkpoint(folder, registry=registry, data=data)
    assert result.kl_teacher is None and "lies inside the checkpoint" in result.notes[0]


def test_the_family_of_the_recipe_chooses_the_adapter(pack, registry):
    """A model type that no adapter covers is run by the one the recipe names."""
    components = {
        ("adapter", name): Component(registry.declared("adapter", name), "edgerazor", "edgerazor.adapters")
        for name in registry.names("adapter")
        if name != "qwen3"
    } | {
        ("quantizer", name): Component(registry.declared("quantizer", name), "edgerazor", "edgerazor.plugins")
        for name in registry.names("quantizer")
    }
    folder, data = pack(family="llama")
    assert evaluate_checkpoint(folder, registry=Registry(components, registry.plugins), data=data).kl_teacher > 0


def test_a_checkpoint_is_evaluated_as_it_lies_on_disk(tmp_path, registry):
    model = save_model(tmp_path / "model")
    content = {"model": {"name_or_path": str(model)}, "quantization": quantization()}
    pack_model(load_recipe(content, registry=registry), registry=registry, output=tmp_path / "packed")
    section = DataSection(sources=[{"path": str(save_data(tmp_path / "data.jsonl"))}], sequence_length=48)
    result = evaluate_checkpoint(tmp_path / "packed", registry=registry, data=section)
    assert result.kl_teacher > 0
    assert 0 < result.top1_agreement < 1
    with pytest.raises(DataError, match="no data section"):
        evaluate_checkpoint(tmp_path / "packed", registry=registry)
