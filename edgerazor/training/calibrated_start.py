"""`training.start: calibrated`, on the first rows of the data, by the first of several processes for all of them."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast, broadcast_object_list
from torch import Tensor

from edgerazor.calibrate import start_calibrated
from edgerazor.core.plan import Plan
from edgerazor.core.ranks import launched
from edgerazor.data.progress import show_progress
from edgerazor.schemas.training import TrainingSection

TOKENS = 131_072  # of texts, and
PICTURES = 128  # that are enough for a calibrated start


def begin_calibrated(student: Any, plan: Plan, training: TrainingSection, rows: Any) -> None:
    """Give a student the latent weights of calibrated rounding, in place, the same ones in every process.

    The first process finds them, with all processor cores where others wait for it, and says after every layer that it
    goes on: a wait that is too long would end the run.

    Args:
        student: float32, on the CPU, with the plan applied.
        plan: of the student.
        training: of the recipe.
        rows: of the training data.

    Raises:
        PlanError: as `start_calibrated`.
    """
    rank, processes = launched()
    if rank == 0:
        count = calibration_rows(training, rows, processes=processes)
        inputs = [_model_input(rows[row]) for row in range(count)]
        with _all_cores(processes > 1), _progress(processes) as show:
            start_calibrated(student, plan, inputs, show=show)
        _say(processes, going_on=False)
    else:
        while _heard():
            pass
    if processes > 1:
        _share(student, plan)


def calibration_rows(training: TrainingSection, rows: Any, *, processes: int) -> int:
    """How many of the first rows a calibrated start sees.

    Args:
        training: of the recipe.
        rows: of the training data.
        processes: of the run, each of which trains on rows of its own.
    """
    if training.start_samples is not None:
        return min(training.start_samples, len(rows))
    most = len(rows)
    if training.max_steps > 0:
        a_step = training.per_device_train_batch_size * training.gradient_accumulation_steps * processes
        most = min(most, training.max_steps * a_step)
    if "pixel_values" in rows[0]:
        return min(most, PICTURES)
    tokens = 0
    for count in range(1, most + 1):
        tokens += len(rows[count - 1]["input_ids"])
        if tokens >= TOKENS:
            return count
    return most


def _model_input(row: Any) -> Tensor:
    """What the model is given of a row alone: token ids `[1, T]`, or a picture `[1, channels, height, width]`."""
    return row["pixel_values"].unsqueeze(0) if "pixel_values" in row else torch.tensor([row["input_ids"]])


@contextmanager
def _all_cores(wanted: bool) -> Iterator[None]:
    """Launchers give each of several processes one thread, or its share."""
    threads = torch.get_num_threads()
    if wanted:
        torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _progress(processes: int) -> Iterator[Callable[[int, int], None]]:
    """What takes the number of finished parts and of all of them, and tells the screen and the other processes."""
    finished, advance = 0, None
    with ExitStack() as stack:

        def show(done: int, total: int) -> None:
            nonlocal finished, advance
            advance = advance or stack.enter_context(show_progress("Calibrating", total))
            advance(done - finished)
            finished = done
            _say(processes, going_on=True)

        yield show


def _say(processes: int, *, going_on: bool) -> None:
    """Tell the other processes, if there are any, whether the first one goes on."""
    if processes > 1:
        broadcast_object_list([going_on])


def _heard() -> bool:
    """Whether the first process goes on."""
    found = [False]
    broadcast_object_list(found)
    return found[0]


@torch.no_grad()
def _share(student: Any, plan: Plan) -> None:
    """Give quantized weights of the first process to all, one at a time by way of their device."""
    for name in dict.fromkeys(entry.parameter_name for entry in plan.quantized):
        parameter = student.get_parameter(name)
        parameter.copy_(broadcast(parameter.to(PartialState().device, copy=True)))
