"""Held-out figures are sums over tokens: they do not depend on how rows are batched."""

import math

import pytest
import torch
from runs import quantization, save_data, save_model, tokenizer
from torch.nn import functional

from edgerazor.errors import DataError
from edgerazor.pipeline.checkpoint import pack_model
from edgerazor.pipeline.data import load_data
from edgerazor.pipeline.evaluate import evaluate_checkpoint, evaluate_model
from edgerazor.schemas.data import DataSection
from edgerazor.schemas.recipe import load_recipe


@pytest.fixture
def dataset(tmp_path):
    section = DataSection(sources=[{"path": str(save_data(tmp_path / "data.jsonl"))}], sequence_length=48)
    return load_data(section, tokenizer()).train


def test_figures_are_what_they_say(build_model, registry, dataset):
    student, teacher = build_model(seed=1, vocab_size=320), build_model(seed=2, vocab_size=320)
    result = evaluate_model(student, teacher, dataset, adapter=registry.adapter_for("qwen3"), batch_size=3)
    total, divergence, agreed, count, text_bytes = 0.0, 0.0, 0, 0, 0
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
        divergence += float((lp.exp() * (lp - lq)).sum())
        agreed += int((lq.argmax(-1) == lp.argmax(-1)).sum())
        count += int(kept.sum())
        text_bytes += row["label_bytes"]
    assert result.tokens == count
    assert result.loss == pytest.approx(total / count, rel=1e-5)
    assert result.kl_teacher == pytest.approx(divergence / count, rel=1e-4)
    assert result.top1_agreement == pytest.approx(agreed / count)
    assert result.bits_per_byte == pytest.approx(total / math.log(2) / text_bytes, rel=1e-5)


def test_batching_does_not_matter(build_model, registry, dataset):
    model, adapter = build_model(vocab_size=320), registry.adapter_for("qwen3")
    one, many = (evaluate_model(model, None, dataset, adapter=adapter, batch_size=size) for size in (1, 16))
    assert one.loss == pytest.approx(many.loss, rel=1e-5)
    assert one.tokens == many.tokens
    assert one.kl_teacher is None


def test_a_teacher_agrees_with_itself(build_model, registry, dataset):
    model = build_model(vocab_size=320)
    result = evaluate_model(model, model, dataset, adapter=registry.adapter_for("qwen3"), batches=2)
    assert result.kl_teacher == pytest.approx(0.0, abs=1e-6)
    assert result.top1_agreement == 1.0


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
