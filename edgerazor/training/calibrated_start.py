"""`training.start: calibrated`, on the first rows of the data, by the first of several processes for all of them."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from math import ceil
from pathlib import Path
from threading import Event, Thread
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast, broadcast_object_list
from torch import Tensor

from edgerazor.calibrate import start_calibrated
from edgerazor.core.plan import Plan
from edgerazor.core.run_folder import CALIBRATION
from edgerazor.data.progress import show_progress
from edgerazor.data.rows import document_slices
from edgerazor.schemas.training import TrainingSection

TOKENS = 131_072  # of texts, and
PICTURES = 128  # that are enough for a calibrated start
BEAT = 60.0  # seconds


def share_calibrated_start(student: Any, plan: Plan, training: TrainingSection, rows: Any, output: Path) -> None:
    """Give a student the latent weights of calibrated rounding, in place, the same ones in every process.

    The first process finds them, with all processor cores where others wait for it.

    Args:
        student: float32, on the CPU, with the plan applied.
        plan: of the student.
        training: of the recipe.
        rows: of the training data, mappings with `input_ids`, lists of token ids, and where documents share a row
            `position_ids`, which begin at 0 with each; or with `pixel_values`, `[channels, height, width]`.
        output: folder of the run; what is computed on the way lies there until the weights are found.

    Raises:
        PlanError: as `start_calibrated`.
    """
    state = PartialState()
    if state.is_main_process:
        count = count_calibration_rows(training, rows, processes=state.num_processes)
        inputs = [part for row in range(count) for part in model_inputs(rows[row])]
        several = state.num_processes > 1
        with _emptied(output / CALIBRATION) as folder, _all_cores(several), _heartbeat(several), _progress() as show:
            start_calibrated(student, plan, inputs, show=show, folder=folder)
    else:
        _wait()
    if state.num_processes > 1:
        _share_weights(student, plan)


def count_calibration_rows(training: TrainingSection, rows: Any, *, processes: int) -> int:
    """How many of the first rows a calibrated start sees: `start_samples`, or by default enough of them.

    Args:
        training: of the recipe.
        rows: of the training data.
        processes: of the run, each of which trains on rows of its own.

    Returns:
        At most the number of rows; by default as many as hold `TOKENS`, or `PICTURES`, and no more than the steps or
        epochs of the recipe train on.
    """
    if training.start_samples is not None:
        return min(training.start_samples, len(rows))
    if training.max_steps > 0:
        a_step = training.per_device_train_batch_size * training.gradient_accumulation_steps * processes
        most = min(len(rows), training.max_steps * a_step)
    else:
        most = min(len(rows), ceil(len(rows) * training.num_train_epochs))
    if "pixel_values" in rows[0]:
        return min(most, PICTURES)
    tokens = 0
    for count in range(1, most + 1):
        tokens += len(rows[count - 1]["input_ids"])
        if tokens >= TOKENS:
            return count
    return most


def model_inputs(row: Any) -> list[Tensor]:
    """What the model is given of a row: token ids `[1, T]` of each document, or `[1, channels, height, width]`."""
    if "pixel_values" in row:
        return [row["pixel_values"].unsqueeze(0)]
    return [torch.tensor([row["input_ids"][document]]) for document in document_slices(row)]


@contextmanager
def _emptied(folder: Path) -> Iterator[Path]:
    """A folder that a killed run may have left."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
def _progress() -> Iterator[Callable[[int, int], None]]:
    """What takes the number of finished layers and of all of them, for the screen."""
    finished, advance = 0, None
    with ExitStack() as stack:

        def show(done: int, total: int) -> None:
            nonlocal finished, advance
            advance = advance or stack.enter_context(show_progress("Calibrating", total))
            advance(done - finished)
            finished = done

        yield show


@contextmanager
def _heartbeat(wanted: bool) -> Iterator[None]:
    """Tell the processes that wait, every minute, that this one goes on: a wait without end would end the run."""
    if not wanted:
        yield
        return
    ended = Event()

    def beat() -> None:
        with suppress(RuntimeError):  # one that waits has ended, which the next broadcast of the main thread says
            while not ended.wait(BEAT):
                broadcast_object_list([True])

    thread = Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    broadcast_object_list([False])


def _wait() -> None:
    """Until the first process says that it has ended."""
    going_on = [True]
    while going_on[0]:
        broadcast_object_list(going_on)


@torch.no_grad()
def _share_weights(student: Any, plan: Plan) -> None:
    """Give quantized weights of the first process to all, one at a time by way of their device."""
    for name in dict.fromkeys(entry.parameter_name for entry in plan.quantized):
        parameter = student.get_parameter(name)
        parameter.copy_(broadcast(parameter.to(PartialState().device, copy=True)))
