"""A Trainer whose loss is the distiller's; launchers, sharding, resume and loggers stay transformers' own.

Every loss is a sum over positions with factors that hold the counts of the whole optimizer step on all ranks, so 8x1,
2x4 and 1x8 (batch x accumulation) give the same gradient (METHOD 4.7).
"""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from edgerazor.checkpoint.learned_scales import load_scales, save_scales
from edgerazor.checkpoint.training_checkpoint import TRAINER_STATE
from edgerazor.core.learned_scales import LearnedScales
from edgerazor.core.outputs import PositionMask, Targets, batch_masks, count_positions, predicted_labels
from edgerazor.distill import Distiller
from edgerazor.distill.on_policy import FLAG, OnPolicySampler
from edgerazor.distill.state import load_state, save_state
from edgerazor.distill.teacher_cache.read import cached_tokens
from edgerazor.errors import TrainingError
from edgerazor.evaluate.checkpoints import EvaluationResult, evaluate_model
from edgerazor.schemas.recipe import Recipe
from edgerazor.training.clock import Clock, learning_rate_factor
from edgerazor.training.learned import add_to_optimizer, prepare_learned
from edgerazor.training.learned_scales import add_scales
from edgerazor.training.save import remove_oldest, saved_whole
from edgerazor.training.sharding import shard_on_cpu

MASKS = 4


class DistillationTrainer(Trainer):
    """Trains a student with a `Distiller`.

    Args:
        teacher: what every step and every evaluation runs; None without one, or where batches hold its tokens.
        evaluation_teacher: loads the teacher for an evaluation alone.
        on_policy: makes texts of the student's own.
        evaluation_collator: makes batches of what is measured; None: the one that makes training batches.
        scales: trained scales of the student's matrices by their names; empty where scales follow the data.
    """

    loss_is_scaled_for_ga = True
    lr_scheduler: Any
    control: Any

    def __init__(
        self,
        *args: Any,
        recipe: Recipe,
        distiller: Distiller,
        teacher: nn.Module | None,
        clock: Clock | None,
        evaluation_teacher: Callable[[], nn.Module] | None = None,
        on_policy: OnPolicySampler | None = None,
        evaluation_collator: Any = None,
        scales: Mapping[str, tuple[Any, LearnedScales]] | None = None,
        **kwargs: Any,
    ):
        self.scales = scales or {}
        self.recipe, self.distiller, self.teacher, self.clock = recipe, distiller, teacher, clock
        self.evaluation_teacher, self.on_policy = evaluation_teacher, on_policy
        super().__init__(*args, **kwargs)
        self.evaluation_collator = evaluation_collator or self.data_collator
        self.model_accepts_loss_kwargs = True
        self._save_into: Path | None = None
        self._counts: Tensor | None = None
        self._sums: dict[str, Tensor] = {}
        self._share_names: set[str] = set()
        self._steps_summed = self._passes_summed = 0
        if self.accelerator.mixed_precision not in ("no", "bf16"):
            raise TrainingError(
                f"mixed precision {self.accelerator.mixed_precision}: fp16 would lose the gradients of the head, and "
                "fp8 round beside the quantizers; launch with bf16 or no"
            )
        prepare_learned(distiller, self.args.device, world_size=self.args.world_size, sharded=self.sharded)
        if on_policy is not None and self.sharded:
            raise TrainingError("distillation.on_policy: a sharded student cannot answer; train without sharding")
        if self.scales and self.sharded:
            raise TrainingError("training.scale_learning_rate: scales of a sharded student cannot be trained")

    @property
    def sharded(self) -> bool:
        """Whether processes hold parts of the weights each."""
        return bool(self.is_fsdp_enabled)

    def create_accelerator_and_postprocess(self) -> None:
        """Make the accelerator as transformers does, and shard on CPUs too, where accelerate would not."""
        super().create_accelerator_and_postprocess()
        if shard_on_cpu(self.accelerator, getattr(self.args, "fsdp_plugin_args", None)):
            self.is_fsdp_enabled = True

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """Fetch the micro-batches of one step and count their positions and live rows, over all ranks.

        A run that had come to its end before it was resumed gets no micro-batches: `Trainer` would make one more step.
        """
        if self.state.global_step >= self.state.max_steps or (self.clock is not None and self.clock.used_up):
            self.control.should_training_stop = True
            return [], None
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if batches:
            batches = [self._own_answers(batch, index) for index, batch in enumerate(batches)]
            counts = torch.zeros(MASKS, 2, dtype=torch.int64, device=device)
            for batch in batches:
                masks = _masks(batch)
                counts += torch.stack([torch.stack(count_positions(mask)) for mask in masks]).to(device)
                self.state.num_input_tokens_seen += batch["token_mask"].numel() * self.args.world_size
            if self.args.world_size > 1:
                counts = self.accelerator.gather(counts.unsqueeze(0)).sum(dim=0)
            self._counts = counts
            self._steps_summed += 1
        return batches, items

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The distiller's total on this micro-batch's share of the step."""
        teacher = cached_tokens(inputs) or self.teacher
        result = self.distiller(model, teacher, inputs, self._targets(inputs))
        with torch.no_grad():
            for name, figure in (*result.shares.items(), *result.metrics.items()):
                self._sums[name] = self._sums.get(name, 0) + figure.detach().float()
        self._share_names |= result.shares.keys()
        self._passes_summed += 1
        # Wrappers average gradients over ranks, while the factors above divide by the counts of all ranks.
        return result.value * self.args.world_size

    def _targets(self, inputs: dict[str, Any]) -> Targets:
        assert self._counts is not None
        tokens, predictions, attention, task = (
            PositionMask(mask, positions, sequences)
            for mask, (positions, sequences) in zip(_masks(inputs), self._counts, strict=True)
        )
        return Targets(inputs["labels"], tokens, predictions, attention, task=task, predicted=predicted_labels(inputs))

    def _own_answers(self, batch: dict[str, Any], index: int) -> dict[str, Any]:
        """A batch to learn from: the one given, or its prompts with answers that the student writes."""
        step = self.state.global_step
        if self.on_policy is None or not self.on_policy.is_chosen(step, index):
            return batch
        student = self.accelerator.unwrap_model(self.model)
        return self.on_policy.resample(student, batch, step=step, index=index, rank=self.args.process_index)

    def create_optimizer(self, model: Any = None) -> Any:
        """Make the optimizer, with groups for what the losses learn themselves and for trained scales."""
        fresh = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if fresh:
            add_to_optimizer(self.distiller, optimizer, max_grad_norm=self.args.max_grad_norm)
            if self.scales:
                assert self.recipe.training.scale_learning_rate is not None
                add_scales(self.scales, optimizer, self.recipe.training.scale_learning_rate)
        return optimizer

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Whole or not at all: what transformers writes lies beside its place until all of it is on the disk."""
        checkpoints = Path(self.args.output_dir)
        folder = checkpoints / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        with saved_whole(folder, self.accelerator) as made:
            self._save_into = made.parent
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self._save_into = None
            if self.scales and self.is_world_process_zero():
                save_scales(self.scales, made)
            if self.state.best_model_checkpoint == str(made):
                self.state.best_model_checkpoint = str(folder)
                if self.is_world_process_zero():
                    self.state.save_to_json(str(made / TRAINER_STATE))
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(folder))
        if self.is_world_process_zero():
            remove_oldest(checkpoints, self.args.save_total_limit, self.state.best_model_checkpoint)

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._save_into or super()._get_output_dir(trial))

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if self._save_into is None:
            super()._push_from_checkpoint(checkpoint_folder)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save:
            save_state(self.distiller, Path(output_dir))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            load_state(self.distiller, Path(checkpoint))
            self._load_scales(checkpoint)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        assert self.state.best_model_checkpoint is not None
        self._load_scales(self.state.best_model_checkpoint)

    def _load_scales(self, checkpoint: str) -> None:
        if self.scales:
            load_scales(self.scales, Path(checkpoint))

    def log(self, logs: dict[str, float], start_time: float | None = None, **kwargs: Any) -> None:
        """Add the metrics since the last log; the only place that reads tensors from the device."""
        if "loss" in logs and not math.isfinite(logs["loss"]):
            raise TrainingError(
                f"the loss is {logs['loss']} at step {self.state.global_step}; lower training.learning_rate or check "
                f"the data. What was saved before is in {self.args.output_dir}"
            )
        if "loss" in logs and self._steps_summed:
            names = sorted(self._sums)
            figures = torch.stack([self._sums[name] for name in names]) if names else torch.zeros(0)
            if self.args.world_size > 1 and names:
                figures = self.accelerator.reduce(figures, reduction="sum")
            passes = self._passes_summed * self.args.world_size
            for name, figure in zip(names, figures.tolist(), strict=True):
                logs[name] = figure / (self._steps_summed if name in self._share_names else passes)
            self._sums, self._steps_summed, self._passes_summed = {}, 0, 0
        super().log(logs, start_time, **kwargs)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Make the learning rate's schedule, by the clock where the recipe gives seconds, else transformers' own."""
        if self.clock is None or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        self.lr_scheduler = LambdaLR(
            optimizer or self.optimizer, learning_rate_factor(self.recipe.training, self.clock)
        )
        return self.lr_scheduler

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Held-out figures from sums over tokens, never from gathered logits."""
        model = self.model_wrapped if self.args.world_size > 1 else self.model
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        return self._report(self._measure(model, dataset, self.accelerator), metric_key_prefix)

    def evaluate_whole(self, student: nn.Module | None) -> dict[str, float]:
        """Held-out figures of a student gathered on the main process; empty on the others, which hold none."""
        if student is None:
            return {}
        student.to(self.args.device)
        return self._report(self._measure(student, self.eval_dataset, None), "eval")

    def _measure(self, model: nn.Module, dataset: Any, accelerator: Any) -> EvaluationResult:
        teacher = self.evaluation_teacher() if self.evaluation_teacher else self.teacher
        return evaluate_model(
            model,
            teacher,
            dataset,
            adapter=self.distiller.adapter,
            teacher_adapter=self.distiller.teacher_adapter,
            batch_size=self.recipe.evaluation.batch_size,
            batches=self.recipe.evaluation.batches,
            collator=self.evaluation_collator,
            accelerator=accelerator,
        )

    def _report(self, result: EvaluationResult, prefix: str) -> dict[str, float]:
        metrics = self.recipe.evaluation.metrics
        teachers = ["teacher_loss"] if "kl_teacher" in metrics else []
        wanted = {*metrics, "tokens", "images", "top1", "top5", *teachers}
        values = {key: value for key, value in result.to_dict().items() if value is not None and key in wanted}
        figures = {f"{prefix}_{key}": float(value) for key, value in values.items()}
        self.log(dict(figures))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, figures)
        return figures


def _masks(batch: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`tokens`, `predictions`, `attention`, and the predictions that the task counts: none of the student's own."""
    tokens, predictions, attention, task = batch_masks(batch)
    return tokens, predictions, attention, torch.zeros_like(task) if batch.get(FLAG) else task
