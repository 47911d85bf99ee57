"""The checkpoints of a run in training: a list of their files that proves them whole, and the newest whole one."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, ValidationError

from edgerazor.checkpoint.manifest import files_in
from edgerazor.core.digests import file_digests, file_fault
from edgerazor.core.json_files import check_file_name, read_json
from edgerazor.errors import CheckpointError
from edgerazor.schemas.base import Schema
from edgerazor.schemas.recipe import key_path

FILES, TRAINER_STATE = "checkpoint_files.json", "trainer_state.json"
_PREFIX = "checkpoint-"
# One of each is what a run goes on from; a sharded run keeps folders of some.
_NEEDED = {
    "the weights": ("model*.safetensors", "pytorch_model*"),
    "the optimizer": ("optimizer*",),
    "the learning rate": ("scheduler.pt",),
    "the random numbers": ("rng_state*.pth",),
    "the trainer": (TRAINER_STATE,),
}


class SavedFile(Schema):
    """Size and digest of one file."""

    title: ClassVar[str] = "file"

    bytes: Annotated[int, Field(ge=0)]
    xxh3_128: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]


class SavedFiles(Schema):
    """The content of `checkpoint_files.json`."""

    title: ClassVar[str] = "the list of files"

    format_version: Annotated[int, Field(ge=1, le=1)] = 1
    files: Annotated[dict[str, SavedFile], Field(min_length=1)]


def write_file_list(folder: Path) -> None:
    """List the files of a checkpoint of a run; all of them must be there."""
    files = {
        name: {"bytes": (folder / name).stat().st_size, **file_digests(folder / name, "xxh3_128")}
        for name in files_in(folder)
        if name != FILES
    }
    content = {"format_version": 1, "files": files}
    (folder / FILES).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def check_files(folder: Path, *, resume: bool) -> None:
    """Compare a checkpoint of a run with its list of files; one of a version that wrote none must hold what it needs.

    Args:
        resume: to go on from it, so the state of the optimizer and what goes with it must be there too.

    Raises:
        CheckpointError: with one line for each file that is missing or damaged.
    """
    problems = list(_damaged(folder)) if (folder / FILES).exists() else []
    if resume or not (folder / FILES).exists():
        problems += list(_absent(folder)) if not problems else []
    if problems:
        raise CheckpointError("\n".join(f"{folder}: {line}" for line in problems))


def newest_whole(checkpoints: Path, *, resume: bool) -> tuple[Path | None, list[str]]:
    """The newest checkpoint of a run that is whole, and what is wrong with each newer one.

    Args:
        checkpoints: folder of the run's checkpoints.
        resume: as for `check_files`.
    """
    problems: list[str] = []
    for folder in reversed(saved_steps(checkpoints)):
        try:
            check_files(folder, resume=resume)
        except CheckpointError as error:
            problems += str(error).splitlines()
        else:
            return folder, problems
    return None, problems


def saved_steps(checkpoints: Path) -> list[Path]:
    """Folders `checkpoint-STEP`, by step, whole or not."""
    found = checkpoints.glob(f"{_PREFIX}*") if checkpoints.is_dir() else ()
    folders = [path for path in found if path.is_dir() and path.name.removeprefix(_PREFIX).isdecimal()]
    return sorted(folders, key=lambda path: int(path.name.removeprefix(_PREFIX)))


def _damaged(folder: Path) -> Iterator[str]:
    try:
        listed = SavedFiles.model_validate(read_json(folder / FILES)).files
        for name in listed:
            check_file_name(name, f"{FILES}: files")
    except ValidationError as error:
        yield from (f"{FILES}: {key_path(line['loc'])}: {line['msg']}" for line in error.errors())
        return
    except CheckpointError as error:
        yield str(error)
        return
    for name, entry in listed.items():
        fault = file_fault(folder / name, entry.bytes, {"xxh3_128": entry.xxh3_128}, listed_in=FILES)
        if fault is not None:
            yield f"{name}: {fault}"


def _absent(folder: Path) -> Iterator[str]:
    for what, patterns in _NEEDED.items():
        if not any(any(folder.glob(pattern)) for pattern in patterns):
            yield f"holds nothing of {what} ({patterns[0]}); it is half written, or was saved without it"
    if (folder / TRAINER_STATE).exists():
        try:
            read_json(folder / TRAINER_STATE)
        except CheckpointError as error:
            yield str(error).removeprefix(f"{folder}/")
