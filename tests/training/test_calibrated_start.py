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
from edgerazor.training import calibrated_start
from edgerazor.training.calibrated_start import (
    PICTURES,
    TOKENS,
    count_calibration_rows,
    model_inputs,
    share_calibrated_start,
)
from tests.forked_commands import end
from tests.ranks import RANKS, end_ranks, free_port, start_ranks
from tests.runs import recipe, write_recipe


def section(**values: Any) -> TrainingSection:
    return TrainingSection.model_validate({"start": "calibrated", **values})


def texts(*lengths: int) -> list[dict[str, Any]]:
    return [{"input_ids": range(length)} for length in lengths]


@given(st.lists(st.integers(1, TOKENS), min_size=1, max_size=20))
def test_rows_are_as_few_as_hold_the_tokens_or_all_of_them(lengths: list[int]) -> None:
    count = count_calibration_rows(section(), texts(*lengths), processes=1)
    assert sum(lengths[: count - 1]) < TOKENS
    assert count == len(lengths) or sum(lengths[:count]) >= TOKENS


@pytest.mark.parametrize(("accumulated", "processes"), [(1, 1), (3, 1), (1, 4), (2, 2)])
def test_no_more_rows_than_the_run_trains_on(accumulated: int, processes: int) -> None:
    training = section(max_steps=5, per_device_train_batch_size=2, gradient_accumulation_steps=accumulated)
    assert count_calibration_rows(training, texts(*[10] * 1000), processes=processes) == 10 * accumulated * processes
    assert count_calibration_rows(training, texts(10, 10, 10), processes=processes) == 3


def test_no_more_rows_than_the_epochs_of_the_run_have() -> None:
    rows = texts(*[10] * 1000)
    assert count_calibration_rows(section(num_train_epochs=0.0105), rows, processes=1) == 11
    assert count_calibration_rows(section(num_train_epochs=3), rows, processes=1) == 1000


@pytest.mark.parametrize(
    ("row", "documents"),
    [
        ({"input_ids": [5, 6, 7]}, [[5, 6, 7]]),
        ({"input_ids": [5, 6, 7, 8, 9], "position_ids": [0, 1, 0, 0, 1]}, [[5, 6], [7], [8, 9]]),
        ({"input_ids": [5, 6], "position_ids": [3, 4]}, [[5, 6]]),
    ],
)
def test_documents_that_share_a_row_are_seen_one_by_one(row: dict[str, Any], documents: list[list[int]]) -> None:
    assert [part.tolist() for part in model_inputs(row)] == [[document] for document in documents]


def test_a_picture_is_seen_by_itself() -> None:
    (picture,) = model_inputs({"pixel_values": torch.zeros(3, 4, 5)})
    assert picture.shape == (1, 3, 4, 5)


def test_what_the_recipe_says_counts_whatever_the_run_trains_on() -> None:
    rows = texts(*[TOKENS] * 9)
    assert count_calibration_rows(section(start_samples=7, max_steps=1), rows, processes=1) == 7
    assert count_calibration_rows(section(start_samples=70), rows, processes=1) == 9


def test_pictures_are_counted_one_by_one() -> None:
    rows = [{"pixel_values": None}] * 1000
    assert count_calibration_rows(section(), rows, processes=1) == PICTURES
    assert count_calibration_rows(section(max_steps=3, per_device_train_batch_size=8), rows, processes=1) == 24


def _begin(raw: dict[str, Any], rank: int, port: int, weights: Path) -> None:
    """What a process of a run does, up to its first step; rows of the second are none that could be calibrated on."""
    own = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}", "RANK": f"{rank}", "WORLD_SIZE": "2"}
    os.environ.update(own | {"LOCAL_RANK": f"{rank}", "LOCAL_WORLD_SIZE": "2"})
    PartialState(cpu=True)
    calibrated_start.BEAT = 0.05  # so that the one that waits hears of it
    loaded = load_recipe(raw, registry=load_plugins(external=False))
    models = Models(loaded.model, load_plugins(external=False))
    student, plan = load_student(models, loaded)
    assert loaded.data is not None
    rows = load_data(loaded.data, models.student.tokenizer).train if rank == 0 else None
    share_calibrated_start(student, plan, loaded.training, rows, weights.with_suffix(""))
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
    assert not any(path.is_dir() and path.name.isdecimal() and any(path.iterdir()) for path in tmp_path.iterdir())
    before = load_file(tmp_path / "model" / "model.safetensors")
    moved = {name for name, weight in load_file(files[0]).items() if not torch.equal(weight, before[name].float())}
    assert moved == {name for name in before if "norm" not in name}


@pytest.mark.slow
@pytest.mark.subprocess
def test_a_fault_of_the_first_process_ends_the_others(tmp_path: Path) -> None:
    head = {"match": ["*.embed_tokens", "lm_head"], "quantizer": {"name": "int", "bits": 4, "group_size": 32}}
    raw = recipe(tmp_path, training={"start": "calibrated", "use_cpu": True}, quantization={"weights": [head]})
    path, logs = write_recipe(tmp_path / "recipe.yaml", raw), tmp_path / "logs"
    codes, words = end_ranks(start_ranks(["train", path, "--output", tmp_path / "run"], logs), logs)
    assert codes == [2, 2]
    assert "rank 0: training.start: calibrated, but the recipe quantizes no matrix of a decoder layer" in words[0]
    assert "rank 1: rank 0 ended before the run did" in words[1]
    assert "Traceback" not in "".join(words)
