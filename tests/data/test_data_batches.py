"""Batches: padding, masks, and that packed documents never see each other inside the model."""

import pytest
import torch
from transformers import Trainer, TrainingArguments

from edgerazor.core.layers.attention import SDPA, register_attention
from edgerazor.core.outputs import Targets
from edgerazor.data import Collator, load_data
from edgerazor.schemas.data import DataSection

PAD = 7
PACKED = [
    {"input_ids": [1, 2, 3, 4], "labels": [-100, 2, -100, 4], "label_bytes": 3, "position_ids": [0, 1, 0, 1]},
    {"input_ids": [5], "labels": [-100], "label_bytes": 0, "position_ids": [0]},
]


def test_packed_batch_pads_with_a_sequence_of_its_own():
    batch = Collator(PAD)(PACKED)
    assert set(batch) == {"input_ids", "labels", "label_bytes", "token_mask", "position_ids", "prediction_rows"}
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4], [5, PAD, PAD, PAD]]
    assert batch["labels"].tolist() == [[-100, 2, -100, 4], [-100] * 4]
    assert batch["position_ids"].tolist() == [[0, 1, 0, 1], [0, 0, 1, 2]]
    assert batch["token_mask"].tolist() == [[True] * 4, [True, False, False, False]]
    assert batch["label_bytes"].tolist() == [3, 0]
    assert batch["prediction_rows"].tolist() == [0, 2]
    assert {key: value.dtype for key, value in batch.items()} == {
        key: torch.bool if key == "token_mask" else torch.int64 for key in batch
    }


def test_padded_batch_has_an_attention_mask():
    rows = [{key: value for key, value in row.items() if key != "position_ids"} for row in PACKED]
    batch = Collator(PAD)(rows)
    assert set(batch) == {"input_ids", "labels", "label_bytes", "token_mask", "attention_mask", "prediction_rows"}
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 0, 0, 0]]
    assert torch.equal(batch["token_mask"], batch["attention_mask"].bool())
    found = Targets.from_labels(batch["labels"]).predictions.mask.flatten().nonzero().flatten()
    assert torch.equal(batch["prediction_rows"], found)


def test_fixed_length():
    assert Collator(PAD, length=6)(PACKED)["input_ids"].shape == (2, 6)
    with pytest.raises(ValueError, match="a row of 4 tokens does not fit into the length 3"):
        Collator(PAD, length=3)(PACKED)


@pytest.fixture
def load(tokenizer, write_lines):
    """`load(packing=...)`: documents of 3 to 25 tokens in rows of 24."""

    def load(packing):
        path = write_lines([{"text": "ab" * (number * 7 % 12 + 1)} for number in range(12)])
        return load_data(DataSection(sources=path, sequence_length=24, packing=packing), tokenizer).train

    return load


@pytest.mark.parametrize("attention", ["sdpa", "eager", SDPA])
@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_packed_documents_are_alone(build_model, load, family, attention):
    register_attention()
    model = build_model(family, vocab_size=400)
    model.set_attn_implementation(attention)
    rows = sorted(load(True), key=lambda row: (row["position_ids"].count(0), len(row["input_ids"])))
    rows = [{key: value[:9] if key != "label_bytes" else value for key, value in rows[0].items()}, *rows[-2:]]
    batch = Collator(PAD)(rows)
    assert not batch["token_mask"].all()
    inputs = {key: batch[key] for key in ("input_ids", "position_ids")}
    with torch.no_grad():
        logits = model(**inputs, use_cache=False).logits
        for number, row in enumerate(rows):
            starts = [index for index, position in enumerate(row["position_ids"]) if position == 0]
            assert number == 0 or len(starts) > 1
            for start, end in zip(starts, [*starts[1:], len(row["input_ids"])], strict=True):
                alone = model(batch["input_ids"][number : number + 1, start:end], use_cache=False).logits
                torch.testing.assert_close(logits[number, start:end], alone[0], atol=1e-5, rtol=1e-5)


def test_packed_and_padded_rows_ask_for_the_same_predictions(load):
    batches = [Collator(PAD)(list(load(packing))) for packing in (True, False)]
    counts = []
    for batch in batches:
        targets = Targets.from_labels(batch["labels"], batch["token_mask"])
        counts.append((int(targets.predictions.positions), int(targets.attention.positions)))
        at_restart = torch.zeros_like(batch["token_mask"])
        if "position_ids" in batch:
            at_restart[:, :-1] = batch["position_ids"][:, 1:] == 0
        assert not (targets.predictions.mask & at_restart).any()
        assert not (targets.predictions.mask & ~batch["token_mask"]).any()
    assert counts[0] == counts[1]
    assert batches[0]["label_bytes"].sum() == batches[1]["label_bytes"].sum()


@pytest.mark.parametrize("packing", [True, False])
def test_trainer_counts_and_keeps_every_key(build_model, load, tmp_path, packing):
    arguments = TrainingArguments(
        output_dir=str(tmp_path), per_device_train_batch_size=2, remove_unused_columns=False, use_cpu=True, report_to=[]
    )
    dataset = load(packing)
    trainer = Trainer(build_model(vocab_size=400), arguments, train_dataset=dataset, data_collator=Collator(PAD))
    batches = list(trainer.get_train_dataloader())
    assert set(batches[0]) == set(Collator(PAD)([dataset[0]]))
    _, counted = trainer.get_batch_samples(iter(batches), len(batches), torch.device("cpu"))
    assert int(counted) == sum(label != -100 for labels in dataset["labels"] for label in labels)
