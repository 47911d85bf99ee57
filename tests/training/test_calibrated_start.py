"""`training.start: calibrated`: on how much of the data, and the same in every process."""

import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import PartialState
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from edgerazor import load_plugins, load_recipe
from edgerazor.data import load_data
from edgerazor.models.load import Models, load_student
from edgerazor.schemas.training import TrainingSection
from edgerazor.training.calibrated_start import PICTURES, TOKENS, begin_calibrated, calibration_rows
from tests.forked_commands import end
from tests.ranks import RANKS, free_port
from tests.runs import recipe


def section(**values: Any) -> TrainingSection:
    return TrainingSection.model_validate({"start": "calibrated", **values})


def texts(*lengths: int) -> list[dict[str, Any]]:
    return [{"input_ids": range(length)} for length in lengths]


@given(st.lists(st.integers(1, TOKENS), min_size=1, max_size=20))
def test_rows_are_as_few_as_hold_the_tokens_or_all_of_them(lengths: list[int]) -> None:
    count = calibration_rows(section(), texts(*lengths), processes=1)
    assert sum(lengths[: count - 1]) < TOKENS
    assert count == len(lengths) or sum(lengths[:count]) >= TOKENS


@pytest.mark.parametrize(("accumulated", "processes"), [(1, 1), (3, 1), (1, 4), (2, 2)])
def test_no_more_rows_than_the_run_trains_on(accumulated: int, processes: int) -> None:
    training = section(max_steps=5, per_device_train_batch_size=2, gradient_accumulation_steps=accumulated)
    assert calibration_rows(training, texts(*[10] * 1000), processes=processes) == 10 * accumulated * processes
    assert calibration_rows(training, texts(10, 10, 10), processes=processes) == 3


def test_what_the_recipe_says_counts_whatever_the_run_trains_on() -> None:
    rows = texts(*[TOKENS] * 9)
    assert calibration_rows(section(start_samples=7, max_steps=1), rows, processes=1) == 7
    assert calibration_rows(section(start_samples=70), rows, processes=1) == 9


def test_pictures_are_counted_one_by_one() -> None:
    rows = [{"pixel_values": None}] * 1000
    assert calibration_rows(section(), rows, processes=1) == PICTURES
    assert calibration_rows(section(max_steps=3, per_device_train_batch_size=8), rows, processes=1) == 24


def _begin(raw: dict[str, Any], rank: int, port: int, weights: Path) -> None:
    """What a process of a run does, up to its first step; rows of the second are none that could be calibrated on."""
    own = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}", "RANK": f"{rank}", "WORLD_SIZE": "2"}
    os.environ.update(own | {"LOCAL_RANK": f"{rank}", "LOCAL_WORLD_SIZE": "2"})
    PartialState(cpu=True)
    loaded = load_recipe(raw, registry=load_plugins(external=False))
    models = Models(loaded.model, load_plugins(external=False))
    student, plan = load_student(models, loaded)
    assert loaded.data is not None
    rows = load_data(loaded.data, models.student.tokenizer).train if rank == 0 else None
    begin_calibrated(student, plan, loaded.training, rows)
    save_file({name: weight.detach().clone() for name, weight in student.named_parameters()}, weights)


@pytest.mark.slow
@pytest.mark.subprocess
def test_the_first_process_finds_the_weights_of_all(tmp_path: Path) -> None:
    raw, port = recipe(tmp_path, training={"start": "calibrated", "max_steps": 3}), free_port()
    context = multiprocessing.get_context("forkserver")
    files = [tmp_path / f"{rank}.safetensors" for rank in RANKS]
    ranks = [context.Process(target=_begin, args=(raw, rank, port, files[rank])) for rank in RANKS]
    for process in ranks:
        process.start()
    assert [end(process) for process in ranks] == [0, 0]
    assert files[0].read_bytes() == files[1].read_bytes()
    before = load_file(tmp_path / "model" / "model.safetensors")
    moved = {name for name, weight in load_file(files[0]).items() if not torch.equal(weight, before[name].float())}
    assert moved == {name for name in before if "norm" not in name}
