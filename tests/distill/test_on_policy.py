"""On-policy batches: prompts stay, answers are the student's, the task does not count them."""

import pytest
import torch

from edgerazor.core.outputs import Targets
from edgerazor.data.rows import IGNORE_INDEX
from edgerazor.distill.on_policy import FLAG, OnPolicySampler
from edgerazor.errors import RecipeError
from edgerazor.schemas.distillation import OnPolicySection
from edgerazor.schemas.recipe import load_recipe
from edgerazor.training import train
from tests.runs import recipe


def sampler(stop=(1,), longest=64, **values):
    section = OnPolicySection(**{"max_new_tokens": 6, "prompt_tokens": 3, **values})
    return OnPolicySampler(section, seed=5, sequence_length=longest, pad_token_id=0, stop_ids=list(stop))


def batch():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(2, 96, (3, 12), generator=generator)
    labels, mask = ids.clone(), torch.ones_like(ids)
    labels[0, :5] = IGNORE_INDEX
    labels[1, 8:], ids[1, 8:], mask[1, 8:] = IGNORE_INDEX, 0, 0
    rows = torch.arange(7)  # of the texts that are replaced
    return {
        "input_ids": ids,
        "labels": labels,
        "attention_mask": mask,
        "token_mask": mask.bool(),
        "prediction_rows": rows,
    }


def test_prompts_stay_and_answers_are_labelled(build_model):
    student, given = build_model(seed=1), batch()
    student.train()
    found = sampler().resample(student, given, step=0, index=0, rank=0)
    assert found[FLAG] is True and student.training
    for row, length in enumerate([5, 3, 3]):
        assert torch.equal(found["input_ids"][row, :length], given["input_ids"][row, :length])
        assert (found["labels"][row, :length] == IGNORE_INDEX).all()
        answered = int(found["attention_mask"][row].sum())
        assert length < answered <= length + 6
        assert torch.equal(found["labels"][row, length:answered], found["input_ids"][row, length:answered])
        assert (found["labels"][row, answered:] == IGNORE_INDEX).all()
        if answered < length + 6:
            assert int(found["input_ids"][row, answered - 1]) == 1
    assert torch.equal(found["token_mask"], found["attention_mask"].bool())
    predictions = Targets.from_labels(found["labels"]).predictions.mask
    assert torch.equal(found["prediction_rows"], predictions.flatten().nonzero().flatten())


def test_the_same_step_draws_the_same_and_another_does_not(build_model):
    student, given = build_model(seed=1), batch()
    state = torch.random.get_rng_state()
    one, same, other, elsewhere = (
        sampler(stop=()).resample(student, given, step=step, index=0, rank=rank)["input_ids"]
        for step, rank in ((3, 0), (3, 0), (4, 0), (3, 1))
    )
    assert torch.equal(one, same) and not torch.equal(one, other) and not torch.equal(one, elsewhere)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_no_row_grows_beyond_the_sequence_length(build_model):
    student, given = build_model(seed=1), batch()
    found = sampler(stop=(), longest=7).resample(student, given, step=0, index=0, rank=0)
    assert found["attention_mask"].sum(dim=1).tolist() == [7, 7, 7]
    longer = sampler(stop=()).resample(student, given, step=0, index=0, rank=0)
    assert torch.equal(found["input_ids"], longer["input_ids"][:, :7])


def test_the_student_is_asked_not_its_generation_config(build_model):
    student, given = build_model(seed=1), batch()
    expected = sampler(stop=()).resample(student, given, step=0, index=0, rank=0)["input_ids"]
    student.generation_config.update(repetition_penalty=50.0, min_new_tokens=3, top_k=1, suppress_tokens=[5])
    before = student.generation_config
    found = sampler(stop=()).resample(student, given, step=0, index=0, rank=0)["input_ids"]
    assert torch.equal(found, expected) and student.generation_config is before


def test_a_share_of_the_batches_is_chosen():
    chosen = sum(sampler(share=0.3).is_chosen(step, 0) for step in range(2000))
    assert 500 < chosen < 700
    assert all(sampler(share=1.0).is_chosen(step, 1) for step in range(50))


@pytest.mark.slow
def test_a_run_counts_the_task_on_the_data_alone(tmp_path, registry):
    def history(share, **values):
        losses = [{"name": "forward_kl"}]
        section = {"task_weight": 0.5, "losses": losses, "on_policy": {"share": share, "max_new_tokens": 8}}
        both = recipe(tmp_path, distillation=section, data={"packing": False}, **values)
        loaded = load_recipe(both, registry=registry)
        return train(loaded, registry=registry, output=tmp_path / f"run-{share}").history

    training = {"max_steps": 6, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 4}
    every = [entry for entry in history(1.0, training=training) if "task" in entry]
    assert all(entry["task"] == 0 and entry["forward_kl"] > 0 for entry in every)
    half = [entry for entry in history(0.5, training=training) if "task" in entry]
    mixed = [entry["task"] for entry in half if entry["task"] > 0]
    # A mean over the positions of the data: never halved by the batches that are the student's own.
    assert mixed and min(mixed) > 0.6 * max(mixed)
    packed = recipe(tmp_path, distillation={"on_policy": {}})
    with pytest.raises(RecipeError, match=r"distillation.on_policy: packed rows .*; set data.packing: false"):
        load_recipe(packed, registry=registry)
