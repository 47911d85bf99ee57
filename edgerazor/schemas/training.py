"""The `training` section: names of transformers.TrainingArguments, without importing it or torch."""

from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from edgerazor.schemas.allocation import AllocationSection
from edgerazor.schemas.base import Schema, nearest
from edgerazor.schemas.paths import local_path

Strategy = Literal["no", "steps", "epoch"]
STARTS = ("model", "calibrated")


class TrainingSection(Schema):
    """Optimisation. What is not declared here goes under `extra` and is checked against the installed transformers."""

    title: ClassVar[str] = "training"

    learning_rate: Annotated[float, Field(gt=0)] = 2e-5
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    adam_epsilon: Annotated[float, Field(gt=0)] = 1e-8
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    optim: str = "adamw_torch_fused"
    optim_args: str | None = None
    lr_scheduler_type: str = "constant_with_warmup"
    lr_scheduler_kwargs: dict[str, Any] = Field(default_factory=dict)
    warmup_steps: Annotated[float, Field(ge=0, description="Steps, or below 1 a share of the run.")] = 0.05

    num_train_epochs: Annotated[float, Field(gt=0)] = 1.0
    max_steps: Annotated[int, Field(ge=-1, description="-1: as many as the epochs take.")] = -1
    max_seconds: Annotated[
        float | None, Field(gt=0, description="Stop by the clock; the learning rate then follows the elapsed share.")
    ] = None
    per_device_train_batch_size: Annotated[int, Field(ge=1)] = 8
    gradient_accumulation_steps: Annotated[int, Field(ge=1)] = 1
    gradient_checkpointing: bool = False
    gradient_checkpointing_kwargs: dict[str, Any] | None = None
    train_parameters: Annotated[
        Literal["all", "quantized"], Field(description="quantized: only weights that a rule quantizes.")
    ] = "all"

    start: Annotated[
        str,
        Field(
            description="model: the 16-bit weights; calibrated: those of calibrated rounding (GPTQ) on the first rows "
            "of the data; or the folder of a packed checkpoint: its weights."
        ),
    ] = "model"
    start_samples: Annotated[
        int | None,
        Field(
            ge=1,
            description="Rows to calibrate on, only with start: calibrated. null: as many as hold 131 072 tokens, or "
            "128 pictures, and no more than the steps or epochs train on.",
        ),
    ] = None
    allocation: Annotated[
        AllocationSection | None,
        Field(description="Chooses the decoder's widths by sensitivity on the first rows of the data."),
    ] = None
    scale_learning_rate: Annotated[
        float | None,
        Field(gt=0, description="Trains the scales of the decoder's matrices, too; relative to each of them."),
    ] = None

    bf16: bool = False
    tf32: bool | None = None
    use_cpu: bool = False
    torch_compile: bool = False
    seed: int = 3407
    data_seed: int | None = None
    full_determinism: bool = False

    dataloader_drop_last: bool = True
    dataloader_num_workers: Annotated[int, Field(ge=0)] = 0
    dataloader_pin_memory: bool = True
    dataloader_persistent_workers: bool = False
    dataloader_prefetch_factor: int | None = None

    logging_steps: Annotated[float, Field(gt=0)] = 10
    logging_first_step: bool = True
    logging_dir: str | None = None
    report_to: str | tuple[str, ...] = "none"
    run_name: str | None = None
    save_strategy: Strategy = "steps"
    save_steps: Annotated[float, Field(gt=0)] = 500
    save_total_limit: int | None = 2
    metric_for_best_model: str | None = None
    greater_is_better: bool | None = None
    load_best_model_at_end: bool = False

    fsdp: str | tuple[str, ...] | bool | None = None
    fsdp_config: dict[str, Any] | str | None = None
    deepspeed: dict[str, Any] | str | None = None
    ddp_find_unused_parameters: bool | None = None
    ddp_backend: str | None = None

    extra: dict[str, Any] = Field(default_factory=dict, description="Any other transformers.TrainingArguments field.")

    @field_validator("allocation", mode="before", json_schema_input_type=AllocationSection | bool | None)
    @classmethod
    def _switched(cls, value: Any) -> Any:
        return {True: {}, False: None}[value] if isinstance(value, bool) else value


def start_fault(start: str) -> str | None:
    """What is wrong with a value of `training.start`: None where it is a known word, or a folder that is there."""
    if start in STARTS or local_path(start).is_dir():
        return None
    close = nearest(start, STARTS) if get_close_matches(start, STARTS) else ""
    return (
        f"training.start: there is no folder {start}"
        f"{close or '; expected model, calibrated, or the folder of a packed checkpoint'}"
    )
