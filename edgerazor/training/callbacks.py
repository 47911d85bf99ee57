"""What a person sees and can do while a run goes on: a progress bar with live figures, and a clean Ctrl-C."""

import math
import signal
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from transformers import TrainerCallback

from edgerazor.core.layers.weight_cache import WeightCache
from edgerazor.training.arguments import NO_STEP_LIMIT
from edgerazor.training.clock import Clock

CHECK_RANKS_EVERY = 10
SECONDS_BETWEEN_LINES = 10.0
_ALWAYS_SHOWN = ("loss", "task", "balancing", "eval_loss", "eval_kl_teacher")


class LiveProgress(TrainerCallback):
    """A rich progress bar: steps or seconds, time left, and the newest losses.

    On a console that is no terminal it prints a line now and then instead, the first as soon as there are figures.

    Args:
        losses: names of the losses, whose shares of the total are shown.
    """

    def __init__(
        self,
        console: Console,
        clock: Clock | None = None,
        title: str = "train",
        now: Callable[[], float] = time.monotonic,
        losses: Sequence[str] = (),
    ):
        self.shown = (*_ALWAYS_SHOWN[:2], *losses, *_ALWAYS_SHOWN[2:])
        self.console, self.clock, self.title, self.now = console, clock, title, now
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._last_line = -math.inf

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        by_clock = self.clock is not None and state.max_steps == NO_STEP_LIMIT
        columns = () if by_clock else (MofNCompleteColumn(),)
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            *columns,
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        total = self.clock.seconds if by_clock and self.clock else state.max_steps
        self._task = self._progress.add_task(self.title, total=total, completed=state.global_step, figures="")
        self._progress.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._progress is not None and self._task is not None:
            by_clock = self.clock is not None and state.max_steps == NO_STEP_LIMIT
            completed = self.clock.elapsed() if by_clock and self.clock else state.global_step
            self._progress.update(self._task, completed=completed)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if self._progress is not None and self._task is not None and logs:
            figures = "  ".join(f"{key} {logs[key]:.4f}" for key in self.shown if isinstance(logs.get(key), float))
            self._progress.update(self._task, figures=f"step {state.global_step}  {figures}")
            if not self.console.is_terminal and self.now() - self._last_line >= SECONDS_BETWEEN_LINES:
                self._last_line = self.now()
                self.console.print(
                    f"{self.title}: step {state.global_step}  {figures}", highlight=False, soft_wrap=True
                )

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the bar off the screen; safe to call again."""
        if self._progress is not None:
            self._progress.stop()


class Interrupt(TrainerCallback):
    """On the first SIGINT or SIGTERM the step is finished and saved; a second SIGINT stops at once."""

    def __init__(self, console: Console):
        self.console = console
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._previous[number] = signal.signal(number, self._handle)
            except ValueError:
                return  # only the main thread may set handlers

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.world_size > 1 and state.global_step % CHECK_RANKS_EVERY:
            return
        if self._received_anywhere(args):
            self.received = self.received or signal.SIGTERM
            control.should_save = True
            control.should_training_stop = True

    def _received_anywhere(self, args: Any) -> bool:
        """Whether some rank got a signal: all must stop at the same step, whichever of them it was."""
        received = self.received is not None
        if args.world_size == 1:
            return received
        flag = torch.tensor(float(received), device=args.device)
        torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
        return bool(flag.item())

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.restore()

    def restore(self) -> None:
        """Give the signals back to whoever had them."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number
        self.console.print("[yellow]stopping after this step and saving; press Ctrl-C again to stop at once[/]")


class StepsChangeWeights(TrainerCallback):
    """Makes the weight cache stale after every optimizer step, whatever kind of optimizer made it."""

    def __init__(self, cache: WeightCache):
        self.cache = cache

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.cache.invalidate()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.cache.invalidate()


class EpochDrawn(TrainerCallback):
    """Tells rows that are changed at random which epoch they are drawn for, so that a resumed run draws the same."""

    def __init__(self, rows: Any):
        self.rows = rows

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.rows.set_epoch(int((state.epoch or 0) + 1e-6))
