"""A teacher of another depth, width and family; what is learned or settled beside the student."""

import json
import os
import signal

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback

from edgerazor.checkpoint import open_checkpoint
from edgerazor.distill.state import FILE
from edgerazor.errors import PlanError, TrainingError
from edgerazor.recipes.check import check_recipe
from edgerazor.schemas.recipe import load_recipe
from edgerazor.training import train
from tests.runs import recipe, save_model, tokenizer, write_recipe

pytestmark = pytest.mark.slow

WIDER = {"hidden_size": 96, "num_hidden_layers": 4, "intermediate_size": 128}


class StopAt(TrainerCallback):
    """Interrupts a run after three steps."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 3:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def wider(tmp_path):
    return save_model(tmp_path / "wider", seed=3, **WIDER)


def distillation(**values):
    layers = {"name": "lafd", "top_k": 2, "refresh": "calibration", "calibration_batches": 3}
    features = {"name": "feature_mse", "layers": layers, "layer_map": "proportional", "projection": "linear"}
    return {"task_weight": 0.1, "losses": [{"name": "forward_kl"}, {**features, **values}]}


def content(folder, teacher, **sections):
    both = recipe(folder, distillation=distillation(), **sections)
    return {**both, "model": {**both["model"], "teacher": str(teacher)}}


def load(registry, folder, teacher, **sections):
    return load_recipe(content(folder, teacher, **sections), registry=registry)


def losses(result):
    return [entry["loss"] for entry in result.history if "loss" in entry]


def test_a_wider_and_deeper_teacher_through_a_projection(tmp_path, registry, wider):
    training = {"max_steps": 6, "save_steps": 3, "learning_rate": 3e-3}
    whole = train(load(registry, tmp_path, wider, training=training), registry=registry, output=tmp_path / "whole")
    states = [tmp_path / "whole" / "checkpoints" / f"checkpoint-{step}" / FILE for step in (3, 6)]
    early, late = (load_file(path) for path in states)
    assert early["feature_mse.module.weight"].shape == (96, 64)
    assert not torch.equal(early["feature_mse.module.weight"], late["feature_mse.module.weight"])
    settled = json.loads((tmp_path / "whole" / "metrics.json").read_text())["layers"]["feature_mse"]
    assert len(settled) == 2 and early["feature_mse.layers"].tolist() == settled
    assert set(settled) <= {1, 2, 3, 4}
    chosen = [{key for key, value in entry.items() if "chosen_" in key and value} for entry in whole.history[:6]]
    assert all(names == {f"feature_mse/chosen_{layer}" for layer in settled} for names in chosen)
    assert not any("module" in name or "feature" in name for name in open_checkpoint(whole.checkpoint).names())

    again = load(registry, tmp_path, wider, training=training)
    half = train(again, registry=registry, output=tmp_path / "parts", callbacks=[StopAt()])
    assert half.interrupted
    resumed = train(again, registry=registry, output=tmp_path / "parts", resume=True)
    assert losses(resumed) == pytest.approx(losses(whole), rel=1e-5)
    again = load_file(tmp_path / "parts" / "checkpoints" / "checkpoint-6" / FILE)
    assert again.keys() == late.keys() and all(torch.allclose(again[key], value) for key, value in late.items())


def test_a_run_without_its_projection_cannot_be_resumed(tmp_path, registry, wider):
    training = {"max_steps": 2, "save_steps": 1}
    train(load(registry, tmp_path, wider, training=training), registry=registry, output=tmp_path / "run")
    for step in (tmp_path / "run" / "checkpoints").iterdir():
        (step / "checkpoint_files.json").unlink()  # as version 0.1 left it
        (step / FILE).unlink()
    more = load(registry, tmp_path, wider, training={**training, "max_steps": 3})
    with pytest.raises(TrainingError, match=r"holds no 'feature_mse.layers'"):
        train(more, registry=registry, output=tmp_path / "run", resume=True)


def test_a_teacher_of_another_family(tmp_path, registry):
    words = tokenizer()
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=4,
        initializer_range=0.2,
    )
    torch.manual_seed(1)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "llama")
    words.save_pretrained(tmp_path / "llama")
    every = {"layers": {"name": "all"}, "layer_map": "proportional"}
    names = ("feature_cosine", "attention_relation", "key_value_relation")
    section = {"losses": [{"name": "eakld"}, *({"name": name, **every} for name in names)]}
    both = recipe(tmp_path, distillation=section, training={"max_steps": 2})
    both["model"]["teacher"] = str(tmp_path / "llama")
    check_recipe(write_recipe(tmp_path / "recipe.yaml", both), registry=registry)
    result = train(load_recipe(both, registry=registry), registry=registry, output=tmp_path / "run")
    entry = next(entry for entry in result.history if "eakld" in entry)
    assert all(entry[name] > 0 for name in names)
    assert result.evaluation["eval_kl_teacher"] > 0


def test_what_cannot_be_compared_is_refused_before_training(tmp_path, registry, wider):
    for values, said in (
        ({"layer_map": "same"}, "num_hidden_layers is 2 in the student and 4 in the teacher"),
        ({"projection": None}, "hidden_size is 64 in the student and 96 in the teacher"),
        ({"layers": {"name": "fixed", "layers": [5]}}, "layer 5 is out of range"),
    ):
        both = content(tmp_path, wider)
        both["distillation"] = distillation(**values)
        with pytest.raises(PlanError, match=said):
            train(load_recipe(both, registry=registry), registry=registry, output=tmp_path / "run")
