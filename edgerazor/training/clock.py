"""Training by the clock: stop after so many seconds, with the learning rate following the elapsed share."""

import math
import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from edgerazor.errors import RecipeError
from edgerazor.schemas.training import TrainingSection


class Clock(TrainerCallback, ExportableState):
    """A run's budget of seconds; the time used travels in trainer_state.json, so a resumed run goes on with it.

    Args:
        seconds: the budget.
        used: what earlier parts of the run took of it.
        now: seconds that have passed since any fixed moment; never decreases.
    """

    def __init__(self, seconds: float, used: float = 0.0, now: Callable[[], float] = time.monotonic):
        self.seconds, self.used, self.now = seconds, used, now
        self._started: float | None = None

    def fraction(self) -> float:
        """Share of the budget that has passed, 0 to 1."""
        return min(self.elapsed() / self.seconds, 1.0)

    def elapsed(self) -> float:
        """Seconds trained so far, earlier parts of a resumed run included."""
        return self.used + (0.0 if self._started is None else self.now() - self._started)

    @property
    def used_up(self) -> bool:
        """Whether earlier parts of the run took all of the budget."""
        return self.used >= self.seconds

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        saved = state.stateful_callbacks.get("Clock", {})
        self.used = float(saved.get("args", {}).get("used", 0.0))
        self._started = self.now()
        state.stateful_callbacks["Clock"] = self.state()  # which one from a run without a clock does not have

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.fraction() >= 1.0:
            control.should_training_stop = True
            control.should_log = True
            control.should_save = args.save_strategy != "no"

    def state(self) -> dict[str, Any]:
        return {"args": {"seconds": self.seconds, "used": self.elapsed()}, "attributes": {}}


_SHAPES: dict[str, Callable[[float], float]] = {
    "constant": lambda fraction: 1.0,
    "constant_with_warmup": lambda fraction: 1.0,
    "linear": lambda fraction: 1.0 - fraction,
    "cosine": lambda fraction: 0.5 * (1.0 + math.cos(math.pi * fraction)),
}


def learning_rate_factor(training: TrainingSection, clock: Clock) -> Callable[[int], float]:
    """The factor of the learning rate by step, which asks the clock how much of the budget has passed.

    Raises:
        RecipeError: the schedule has no form that depends on the elapsed share alone.
    """
    shape = _SHAPES.get(training.lr_scheduler_type)
    if shape is None:
        raise RecipeError(
            f"training.lr_scheduler_type: '{training.lr_scheduler_type}' cannot follow the clock; with max_seconds use "
            f"{', '.join(_SHAPES)}"
        )
    by_share = training.warmup_steps < 1

    def factor(step: int) -> float:
        fraction = clock.fraction()
        progress = fraction if by_share else float(step + 1)
        if training.warmup_steps and progress < training.warmup_steps:
            return max(progress / training.warmup_steps, 1e-3)
        warmup = training.warmup_steps if by_share else 0.0
        return shape((fraction - warmup) / (1.0 - warmup) if fraction < 1.0 else 1.0)

    return factor
