"""How a step's rows are split among processes, and whether a run goes on with the same steps in another number of them.

Rows have one order whatever the number of processes: a step takes the next processes x batch x accumulation of them.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from edgerazor.checkpoint.training_checkpoint import TRAINER_STATE
from edgerazor.core.json_files import read_json
from edgerazor.errors import TrainingError
from edgerazor.schemas.training import TrainingSection

_SHARDS, _RANDOM = "pytorch_model_fsdp*", "rng_state_*.pth"


@dataclass(frozen=True)
class Split:
    """Processes, rows of a forward pass of each, and forward passes of a step."""

    processes: int
    batch: int
    accumulation: int

    @property
    def rows(self) -> int:
        """Rows of a step."""
        return self.processes * self.batch * self.accumulation

    def epoch(self, rows: int, *, drop_last: bool) -> tuple[Any, ...]:
        """What an epoch of so many rows is: full steps, rows of a last one, and the split where rows are repeated."""
        passes, rest = divmod(rows, self.processes * self.batch)
        steps, left = divmod(passes, self.accumulation)
        repeated = self if rest and not drop_last and self.processes > 1 else None
        return steps, left * self.processes * self.batch + (0 if drop_last else rest), repeated

    def __str__(self) -> str:
        return f"{self.processes} x {self.batch} x {self.accumulation} = {self.rows} rows"


def split_of(training: TrainingSection, processes: int) -> Split:
    """How so many processes would split the steps of a recipe."""
    return Split(processes, training.per_device_train_batch_size, training.gradient_accumulation_steps)


class SplitSaved(TrainerCallback, ExportableState):
    """Keeps the split with every checkpoint, in trainer_state.json."""

    def __init__(self, processes: int, batch: int, accumulation: int):
        self.split = Split(processes, batch, accumulation)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A run that goes on from a checkpoint without a split gets one; transformers looks it up before it saves."""
        state.stateful_callbacks[SplitSaved.__name__] = self.state()

    def state(self) -> dict[str, Any]:
        return {"args": asdict(self.split), "attributes": {}}


def saved_split(checkpoint: Path) -> Split | None:
    """The split by which a checkpoint was made; None if it does not say it, as those of older versions."""
    saved = read_json(checkpoint / TRAINER_STATE).get("stateful_callbacks", {}).get(SplitSaved.__name__)
    return Split(**saved["args"]) if saved else None


def resumed_split(checkpoint: Path, training: TrainingSection, processes: int) -> tuple[dict[str, int], str | None]:
    """The batch and accumulation by which a recipe goes on with the steps of a checkpoint, and a note of what changes.

    Args:
        training: of the recipe.
        processes: that go on.

    Raises:
        TrainingError: as `check_split`.
    """
    before, now = saved_split(checkpoint), split_of(training, processes)
    if before is None:
        saved = max(
            len([path for path in checkpoint.glob(_RANDOM) if path.stem.removeprefix("rng_state_").isdecimal()]), 1
        )
        if saved != processes:
            raise TrainingError(
                f"{checkpoint}: was saved by {saved} processes, not {processes}, and does not say how they split its "
                "steps; start as many as before"
            )
        return {}, None
    note = check_split(before, now, checkpoint)
    same = now if note else before
    return {"per_device_train_batch_size": same.batch, "gradient_accumulation_steps": same.accumulation}, note


def check_split(before: Split, now: Split, checkpoint: Path) -> str | None:
    """Check that another number of processes makes the same steps; returns a note that says what else differs.

    Raises:
        TrainingError: steps would have another number of rows, or the weights are in parts for as many processes.
    """
    if before.processes == now.processes:
        return None
    where = f"{checkpoint}: was saved by {before.processes} process{'es' * (before.processes > 1)}, not {now.processes}"
    if any(checkpoint.glob(_SHARDS)):
        raise TrainingError(f"{where}: FSDP keeps a part of weights and optimizer for each; start as many as before")
    if before.rows != now.rows:
        raise TrainingError(
            f"{where}: a step would learn from {now}, but had {before} (processes x per_device_train_batch_size x "
            "gradient_accumulation_steps); start as many processes as before, or set training."
            f"gradient_accumulation_steps so that it has {before.rows}"
        )
    return (
        f"{where}: every step has the same {now.rows} rows in the same order; dropout and on_policy draw other "
        "numbers, and what is chosen in every forward pass (scope: batch, refresh: step) may be another choice"
    )


def check_epoch(checkpoint: Path, training: TrainingSection, processes: int, rows: int) -> None:
    """Check that an epoch of so many rows ends as in the run that a checkpoint is of.

    Raises:
        TrainingError: it does not, so that steps after it would have other rows.
    """
    before, now = saved_split(checkpoint), split_of(training, processes)
    if before is None:
        return
    epochs = [split.epoch(rows, drop_last=training.dataloader_drop_last) for split in (before, now)]
    if epochs[0] != epochs[1]:
        raise TrainingError(
            f"{checkpoint}: was saved with steps of {before}, and an epoch of {rows} rows would end otherwise with "
            f"{now}; start as many processes as before, with the same batch and accumulation"
        )
