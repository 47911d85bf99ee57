"""Training runs: gradients independent of accumulation, resume, interruption, the clock, and what is refused."""

import json
import os
import shutil
import signal
import time

import pytest
import torch
from transformers import AutoModelForCausalLM, TrainerCallback

import edgerazor.hf  # noqa: F401 - registers the packed format
from edgerazor.core.layers.linear import QuantLinear
from edgerazor.errors import DataError, PlanError, RecipeError, TrainingError
from edgerazor.models.share_weights import share_frozen_weights
from edgerazor.schemas.recipe import load_recipe
from edgerazor.training import build as run_module
from edgerazor.training import train
from tests.forked_commands import end, start
from tests.runs import recipe, save_data, save_model

pytestmark = pytest.mark.slow


class Gradients(TrainerCallback):
    """Keeps the gradients of the first optimizer step."""

    def __init__(self):
        self.kept = None

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        if self.kept is None:
            self.kept = {name: value.grad.clone() for name, value in model.named_parameters()}


class Stopwatch(TrainerCallback):
    """A clock on which every optimizer step takes a quarter of a second, however fast the machine is."""

    SECONDS_PER_STEP = 0.25

    def __init__(self, time):
        self.time = time

    def __call__(self):
        return self.time

    def on_step_end(self, args, state, control, **kwargs):
        self.time += self.SECONDS_PER_STEP


class TerminateAfter(TrainerCallback):
    """Sends SIGTERM to this process at the end of a step."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def run(folder, registry, name="run", resume=False, callbacks=(), clock=None, **sections):
    loaded = load_recipe(recipe(folder, **sections), registry=registry)
    options = {} if clock is None else {"now": clock}
    callbacks = [*callbacks] if clock is None else [clock, *callbacks]
    return train(loaded, registry=registry, output=folder / name, resume=resume, callbacks=callbacks, **options)


def losses(result):
    return [entry["loss"] for entry in result.history if "loss" in entry]


def test_a_run_learns_packs_and_says_what_it_did(tmp_path, registry):
    result = run(tmp_path, registry, training={"max_steps": 30, "learning_rate": 3e-3})
    first, last = losses(result)[0], losses(result)[-1]
    assert last < 0.8 * first
    assert result.evaluation.keys() >= {"eval_loss", "eval_kl_teacher", "eval_top1_agreement", "eval_bits_per_byte"}
    assert (result.checkpoint / "model.safetensors").exists()
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["steps"] == 30 == result.steps
    assert 30 * 4 * 50 < metrics["tokens"] <= 30 * 4 * 64
    entry = next(entry for entry in result.history if "eakld" in entry)
    assert {"task", "feature_mse", "eakld/gamma", "eakld/forward_kl", "eakld/teacher_entropy"} <= entry.keys()
    total = entry["task"] + entry["eakld"] + entry["feature_mse"]
    assert entry["loss"] == pytest.approx(total, rel=1e-4)


def test_the_resolved_recipe_beside_the_run_reads_back_equal(tmp_path, registry):
    loaded = load_recipe(recipe(tmp_path, training={"max_steps": 1}), registry=registry)
    train(loaded, registry=registry, output=tmp_path / "run")
    again = load_recipe(tmp_path / "run" / "recipe.yaml", registry=registry)
    assert again.written_by is not None
    assert again.model_copy(update={"written_by": None}) == loaded


def test_batch_times_accumulation_gives_one_gradient(tmp_path, registry):
    kept = []
    for size, accumulation in ((8, 1), (4, 2), (1, 8)):
        gradients = Gradients()
        training = {
            "max_steps": 1,
            "per_device_train_batch_size": size,
            "gradient_accumulation_steps": accumulation,
            "max_grad_norm": 0.0,
        }
        data = {"packing": False}
        run(tmp_path, registry, f"run-{size}", callbacks=[gradients], training=training, data=data)
        kept.append(gradients.kept)
    for other in kept[1:]:
        for name, gradient in kept[0].items():
            torch.testing.assert_close(
                other[name], gradient, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
            )


def test_gradient_checkpointing_changes_nothing(tmp_path, registry):
    plain = run(tmp_path, registry, "plain", training={"max_steps": 3})
    saved = run(tmp_path, registry, "checkpointed", training={"max_steps": 3, "gradient_checkpointing": True})
    assert losses(plain) == pytest.approx(losses(saved), rel=1e-6)


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, registry):
    whole = run(tmp_path, registry, "whole")
    half = run(tmp_path, registry, "half", callbacks=[TerminateAfter(4)])
    assert half.interrupted
    assert half.checkpoint is None
    assert half.steps in (4, 5)
    resumed = run(tmp_path, registry, "half", resume=True)
    assert losses(resumed) == pytest.approx(losses(whole), rel=1e-6)
    assert resumed.evaluation["eval_loss"] == pytest.approx(whole.evaluation["eval_loss"], rel=1e-6)


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path, registry):
    run(tmp_path, registry, training={"max_steps": 2, "save_steps": 1})
    with pytest.raises(TrainingError, match="already holds a run; resume it with --resume"):
        run(tmp_path, registry, training={"max_steps": 2})
    with pytest.raises(TrainingError, match="nothing to resume"):
        run(tmp_path, registry, "other", resume=True)


def test_training_by_the_clock_stops_and_lets_the_rate_fall(tmp_path, registry):
    training = {"max_seconds": 2.0, "max_steps": -1, "lr_scheduler_type": "cosine", "logging_steps": 1}
    result = run(tmp_path, registry, clock=Stopwatch(100.0), training=training)
    rates = [entry["learning_rate"] for entry in result.history if "learning_rate" in entry]
    assert result.seconds == 2.0
    assert result.steps == 8 == len(rates)
    falling = rates[rates.index(max(rates)) :]
    assert len(falling) > 2
    assert falling == sorted(falling, reverse=True)
    assert rates[-1] < 0.3 * max(rates)
    with pytest.raises(RecipeError, match="'polynomial' cannot follow the clock"):
        run(tmp_path, registry, "other", training={"max_seconds": 1.0, "lr_scheduler_type": "polynomial"})


def test_the_clock_goes_on_where_an_interrupted_run_stopped(tmp_path, registry):
    training = {"max_seconds": 3.0, "max_steps": -1}
    first = run(tmp_path, registry, callbacks=[TerminateAfter(8)], clock=Stopwatch(100.0), training=training)
    assert first.interrupted
    assert first.steps in (8, 9)
    second = run(tmp_path, registry, resume=True, clock=Stopwatch(7.0), training=training)
    assert first.seconds + second.seconds == 3.0
    assert second.steps == 12
    assert second.tokens > first.tokens


@pytest.mark.parametrize("length", [{"max_steps": 3}, {"max_steps": -1, "max_seconds": 0.75}])
def test_a_run_that_was_at_its_end_makes_no_further_step(tmp_path, registry, length):
    training = {"save_steps": 1, **length}
    whole = run(tmp_path, registry, clock=Stopwatch(100.0), training=training)
    before = {file.name: file.read_bytes() for file in whole.checkpoint.iterdir() if file.suffix != ".md"}
    shutil.rmtree(whole.checkpoint)
    again = run(tmp_path, registry, resume=True, clock=Stopwatch(7.0), training=training)
    assert (again.steps, again.tokens, again.seconds) == (whole.steps, whole.tokens, 0.0)
    assert again.steps == 3 and again.evaluation == whole.evaluation
    assert (again.checkpoint / "model.safetensors").read_bytes() == before["model.safetensors"]
    checkpoints = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert checkpoints[-1] == "checkpoint-3"


def test_another_recipe_does_not_resume_a_run(tmp_path, registry):
    run(tmp_path, registry, training={"max_steps": 2, "save_steps": 1})
    with pytest.raises(RecipeError) as error:
        changed = {"training": {"max_steps": 4, "learning_rate": 1.0}, "quantization": {"kv_cache": None}}
        run(tmp_path, registry, resume=True, **changed)
    assert [line.partition(":")[0] for line in error.value.problems] == [
        "quantization.kv_cache",
        "training.learning_rate",
    ]
    assert run(tmp_path, registry, resume=True, training={"max_steps": 4, "save_steps": 1}).steps == 4


def test_checkpoints_of_a_run_load_as_the_student(tmp_path, registry):
    run(tmp_path, registry, training={"max_steps": 2, "save_steps": 2})
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "checkpoints" / "checkpoint-2")
    assert isinstance(model.model.layers[0].mlp.up_proj, QuantLinear) and not model.training


def test_half_precision_is_refused(tmp_path, registry):
    with pytest.raises(RecipeError, match=r"extra\.fp16: is set by nothing: float16 gradients of the head underflow"):
        run(tmp_path, registry, training={"extra": {"fp16": True}})


def test_plain_quantization_aware_training_needs_no_teacher(tmp_path, registry):
    evaluation = {"metrics": ["loss"]}
    result = run(tmp_path, registry, distillation=None, evaluation=evaluation, training={"max_steps": 3})
    assert set(result.evaluation) == {"eval_loss", "eval_tokens"}
    entry = next(entry for entry in result.history if "task" in entry)
    assert entry["loss"] == pytest.approx(entry["task"], rel=1e-5)


def test_only_quantized_weights_train_when_asked(tmp_path, registry, monkeypatch):
    saved = []
    monkeypatch.setattr(run_module, "share_frozen_weights", lambda *models: saved.append(share_frozen_weights(*models)))

    class Frozen(TrainerCallback):
        names = ()

        def on_train_begin(self, args, state, control, model=None, **kwargs):
            self.names = [name for name, value in model.named_parameters() if not value.requires_grad]

    frozen = Frozen()
    run(tmp_path, registry, callbacks=[frozen], training={"max_steps": 1, "train_parameters": "quantized"})
    assert frozen.names
    assert all("norm" in name for name in frozen.names)
    assert len(saved) == 1 and saved[0] > 0


def test_evaluation_during_the_run_is_logged(tmp_path, registry):
    result = run(tmp_path, registry, evaluation={"every_steps": 4, "batches": 1})
    steps = [entry["step"] for entry in result.history if "eval_kl_teacher" in entry]
    assert steps[:2] == [4, 8]


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, registry):
    with pytest.raises(TrainingError, match=r"the loss is nan at step \d+"):
        run(tmp_path, registry, training={"learning_rate": 1e30, "max_steps": 8, "max_grad_norm": 0.0})


def test_vocabularies_must_agree(tmp_path, registry):
    other = save_model(tmp_path / "other", vocabulary=400)
    with pytest.raises(PlanError, match="vocabularies of 400 and 320 tokens"):
        run(tmp_path, registry, model={"name_or_path": str(save_model(tmp_path / "model2")), "teacher": str(other)})


def test_depth_must_agree_where_features_are_compared(tmp_path, registry):
    deep = save_model(tmp_path / "deep", num_hidden_layers=3)
    model = {"name_or_path": str(save_model(tmp_path / "model2")), "teacher": str(deep)}
    with pytest.raises(PlanError, match="num_hidden_layers is 2 in the student and 3 in the teacher"):
        run(tmp_path, registry, model=model)


def test_unknown_extra_arguments_name_the_nearest(tmp_path, registry):
    with pytest.raises(RecipeError, match="no 'neftune_noise_alfa'; did you mean 'neftune_noise_alpha'"):
        run(tmp_path, registry, training={"extra": {"neftune_noise_alfa": 1}})


def test_too_little_data_is_an_error(tmp_path, registry):
    short = save_data(tmp_path / "short.jsonl", ["one line\n"])
    with pytest.raises((DataError, TrainingError), match="batch"):
        run(tmp_path, registry, data={"sources": [str(short)], "held_out": None})


@pytest.mark.subprocess
def test_ctrl_c_on_the_command_line_saves_and_says_how_to_go_on(tmp_path):
    import yaml

    content = recipe(tmp_path, training={"max_steps": 100_000, "logging_steps": 1})
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    log = tmp_path / "log"
    process = start(["train", tmp_path / "recipe.yaml", "--output", tmp_path / "run"], log)
    # The first line of figures comes after the first step.
    while process.is_alive() and not (log.exists() and "train: step " in log.read_text()):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    assert end(process) == 130, log.read_text()
    assert "--resume" in log.read_text()
    assert list((tmp_path / "run" / "checkpoints").glob("checkpoint-*"))
