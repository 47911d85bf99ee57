"""A run goes on with another number of processes where every step has the same rows, and is refused elsewhere."""

import json
from itertools import chain
from pathlib import Path

import pytest
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler

from edgerazor.errors import TrainingError
from edgerazor.schemas.training import TrainingSection
from edgerazor.training.split import Split, SplitSaved, check_epoch, resumed_split

few = st.integers(1, 4)
splits = st.builds(Split, few, few, few)


def steps(rows: int, split: Split, *, drop_last: bool) -> list[list[int]]:
    """The rows of every step of an epoch, as torch and accelerate deal them out."""
    batches = BatchSampler(range(rows), split.batch, drop_last)
    ranks = [list(BatchSamplerShard(batches, split.processes, rank)) for rank in range(split.processes)]
    if split.processes == 1:
        ranks = [list(batches)]
    passes = [sorted(row for batch in together for row in batch) for together in zip(*ranks, strict=True)]
    starts = range(0, len(passes), split.accumulation)
    return [sorted(chain.from_iterable(passes[start : start + split.accumulation])) for start in starts]


@given(st.integers(0, 60), splits, splits, st.booleans())
def test_epochs_that_are_equal_have_the_same_rows_in_every_step(
    rows: int, one: Split, other: Split, drop_last: bool
) -> None:
    if one.rows == other.rows and one.epoch(rows, drop_last=drop_last) == other.epoch(rows, drop_last=drop_last):
        assert steps(rows, one, drop_last=drop_last) == steps(rows, other, drop_last=drop_last)


@pytest.mark.parametrize("rows", [16, 19, 23])
def test_a_split_that_leaves_the_same_rows_is_allowed(rows: int) -> None:
    assert Split(2, 4, 1).epoch(rows, drop_last=True) == Split(1, 8, 1).epoch(rows, drop_last=True)
    assert (rows == 23) == (Split(2, 4, 1).epoch(rows, drop_last=True) != Split(1, 4, 2).epoch(rows, drop_last=True))


def checkpoint(folder: Path, split: Split | None, *names: str) -> Path:
    """One that says how it was split, and has these files besides."""
    kept = {SplitSaved.__name__: SplitSaved(split.processes, split.batch, split.accumulation).state()} if split else {}
    (folder / "trainer_state.json").write_text(json.dumps({"stateful_callbacks": kept}))
    for name in names:
        (folder / name).touch()
    return folder


def training(batch: int, accumulation: int) -> TrainingSection:
    return TrainingSection(per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation)


@pytest.mark.parametrize(("processes", "batch", "accumulation"), [(1, 8, 1), (1, 4, 2), (4, 2, 1)])
def test_the_same_rows_are_allowed_with_a_note(processes: int, batch: int, accumulation: int, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, Split(2, 4, 1))
    kept, note = resumed_split(folder, training(batch, accumulation), processes)
    assert kept == {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
    assert note and f"not {processes}: every step has the same 8 rows" in note
    check_epoch(folder, training(batch, accumulation), processes, 16)


def test_what_the_checkpoint_was_made_with_counts_for_the_same_number(tmp_path: Path) -> None:
    kept, note = resumed_split(checkpoint(tmp_path, Split(2, 4, 1)), training(2, 2), 2)
    assert kept == {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1} and note is None


def test_other_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"by 2 processes, not 1: .* 1 x 4 x 1 = 4 rows, but had 2 x 4 x 1 = 8"):
        resumed_split(checkpoint(tmp_path, Split(2, 4, 1)), training(4, 1), 1)


def test_an_epoch_that_ends_otherwise_is_refused(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, Split(2, 4, 1))
    with pytest.raises(TrainingError, match="an epoch of 20 rows would end otherwise with 1 x 4 x 2 = 8 rows"):
        check_epoch(folder, training(4, 2), 1, 20)


def test_shards_are_refused(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, Split(2, 4, 1), "pytorch_model_fsdp_0")
    with pytest.raises(TrainingError, match="by 2 processes, not 1: FSDP keeps a part"):
        resumed_split(folder, training(8, 1), 1)


@pytest.mark.parametrize(("names", "saved"), [(["rng_state.pth"], 1), (["rng_state_0.pth", "rng_state_1.pth"], 2)])
def test_one_that_does_not_say_it_goes_on_with_as_many(names: list[str], saved: int, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, None, *names)
    assert resumed_split(folder, training(8, 1), saved) == ({}, None)
    with pytest.raises(TrainingError, match=f"was saved by {saved} processes, not {3 - saved}, and does not say"):
        resumed_split(folder, training(8, 1), 3 - saved)
