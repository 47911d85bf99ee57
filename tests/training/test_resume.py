"""What may change in the recipe when a run is resumed, and what is refused with its key, value and former value."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgerazor.core.registry import Registry
from edgerazor.core.resolved_recipe import write_resolved_recipe
from edgerazor.errors import RecipeError, TrainingError
from edgerazor.schemas.recipe import load_recipe
from edgerazor.schemas.training import TrainingSection
from edgerazor.training.resume import check_resumable
from tests.runs import recipe

Resume = Callable[..., None]
FREE = {
    "max_steps": 100,
    "max_seconds": 60.0,
    "num_train_epochs": 3.0,
    "logging_steps": 7,
    "logging_first_step": False,
    "logging_dir": "logs",
    "report_to": "tensorboard",
    "run_name": "second",
    "save_strategy": "epoch",
    "save_steps": 3,
    "save_total_limit": 9,
    "start_samples": 9,
    "dataloader_num_workers": 2,
    "dataloader_pin_memory": False,
    "dataloader_persistent_workers": True,
    "dataloader_prefetch_factor": 4,
}
VALUES = {
    "optim": "sgd",
    "optim_args": "a=1",
    "lr_scheduler_type": "cosine",
    "lr_scheduler_kwargs": {"num_cycles": 2},
    "gradient_checkpointing_kwargs": {"use_reentrant": False},
    "scale_learning_rate": 0.01,
    "start": "calibrated",
    "allocation": {"free": True},
    "train_parameters": "quantized",
    "tf32": True,
    "data_seed": 1,
    "metric_for_best_model": "loss",
    "greater_is_better": True,
    "load_best_model_at_end": True,
    "fsdp": "full_shard",
    "fsdp_config": {"version": 2},
    "deepspeed": {"zero_optimization": {"stage": 2}},
    "ddp_find_unused_parameters": True,
    "ddp_backend": "gloo",
    "extra": {"neftune_noise_alpha": 5.0},
}


def default(key: str) -> Any:
    return TrainingSection.model_fields[key].get_default(call_default_factory=True)


def other(key: str) -> Any:
    """A value of a training setting that is not its default."""
    value = default(key)
    if key in VALUES:
        return VALUES[key]
    return not value if isinstance(value, bool) else value * 0.5 if isinstance(value, float) else value + 1


@pytest.fixture
def resume(tmp_path: Path, registry: Registry) -> Resume:
    """`resume(before, **sections)`: compare the sections with a run that was started by those in `before`."""

    def resume(before: dict[str, Any] | None = None, **sections: Any) -> None:
        path = tmp_path / "recipe.yaml"
        started = load_recipe(recipe(tmp_path, **(before or {})), registry=registry)
        write_resolved_recipe(started, path, registry=registry)
        check_resumable(load_recipe(recipe(tmp_path, **sections), registry=registry), path, registry=registry)

    return resume


def test_the_recipe_itself_goes_on(resume: Resume) -> None:
    resume()
    with pytest.raises(RecipeError):
        resume(training={"seed": 1})


@pytest.mark.parametrize("key", FREE)
def test_length_logging_saving_loading_and_where_it_began_may_change(key: str, resume: Resume) -> None:
    resume(training={key: FREE[key]})


@pytest.mark.slow
@pytest.mark.parametrize("key", sorted(TrainingSection.model_fields.keys() - FREE))
def test_every_other_training_setting_is_refused(key: str, resume: Resume) -> None:
    plain = {"evaluation": {"every_steps": 2}, "training": {key: default(key)}}
    with pytest.raises(RecipeError) as error:
        resume(plain, **{**plain, "training": {key: other(key)}})
    (line,) = error.value.problems
    assert line.startswith(f"training.{key}")


def test_the_message_names_key_value_and_former_value(resume: Resume, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as error:
        resume(
            training={"max_grad_norm": 0.5, "use_cpu": False, "extra": {"neftune_noise_alpha": 5.0}},
            quantization={"kv_cache": {"name": "int", "bits": 4, "group_size": 16}},
            data={"held_out": None},
        )
    end = f" when the run was started ({tmp_path / 'recipe.yaml'}); resume with that, or start a new run"
    assert error.value.problems == [
        f"data.held_out: is null, but was 0.1{end}",
        f"quantization.kv_cache.bits: is 4, but was 8{end}",
        f"training.extra.neftune_noise_alpha: is 5.0, but was absent{end}",
        f"training.max_grad_norm: is 0.5, but was 1.0{end}",
        f"training.use_cpu: is false, but was true{end}",
    ]


def test_what_is_long_is_cut_short(resume: Resume) -> None:
    with pytest.raises(RecipeError) as error:
        resume(distillation={"losses": [{"name": "eakld", "weight": 1.0}]})
    (line,) = error.value.problems
    assert line.startswith("distillation.losses: is [{") and line.count("…") == 2


@pytest.mark.parametrize(
    "decides",
    [
        {"load_best_model_at_end": True, "save_steps": 2},
        {"lr_scheduler_type": "reduce_lr_on_plateau", "metric_for_best_model": "loss"},
    ],
)
def test_evaluations_that_decide_may_not_change(decides: dict[str, Any], resume: Resume) -> None:
    plain = {"evaluation": {"every_steps": 2}, "training": {"save_steps": 2}}
    rarer = {"evaluation": {"every_steps": 4, "batches": 3}, "training": {"save_steps": 4}}
    resume(plain, **rarer)
    before, now = ({**sections, "training": {**decides, **sections["training"]}} for sections in (plain, rarer))
    with pytest.raises(RecipeError) as error:
        resume(before, **now)
    assert [line.partition(":")[0] for line in error.value.problems] == [
        "evaluation.batches",
        "evaluation.every_steps",
        "training.save_steps",
    ]


def test_a_run_without_its_recipe_is_not_resumed(tmp_path: Path, registry: Registry) -> None:
    content = load_recipe(recipe(tmp_path), registry=registry)
    with pytest.raises(TrainingError, match="is missing, so nothing says what the run was started with"):
        check_resumable(content, tmp_path / "absent.yaml", registry=registry)
