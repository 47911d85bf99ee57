"""What a stored model is measured on and compared with, by the recipe that came with it or as was asked for."""

from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from edgerazor.core.registry import Registry
from edgerazor.data import Data, load_data
from edgerazor.errors import CheckpointError, DataError, PlanError
from edgerazor.models.load import Models
from edgerazor.schemas.data import DataSection
from edgerazor.schemas.model import ModelSection


def held_out_section(path: Path, stored: DataSection | None, given: DataSection | None) -> DataSection:
    """The data section to measure on: the one given, or the one of the recipe if that holds out data.

    Args:
        path: the stored model, for messages.
        stored: data section of its recipe.
        given: read instead; without `held_out` its sources are read whole.

    Raises:
        DataError: nothing was given, and the recipe has no data section or holds nothing out.
    """
    if given is not None:
        return given
    if stored is None:
        raise DataError(f"{path}: its recipe has no data section; give a file to evaluate on with --data")
    if stored.held_out is None:
        raise DataError(f"{path}: its recipe holds out no data (data.held_out); give a file with --data")
    return stored


def load_held_out(section: DataSection, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """Rows of what a section of `held_out_section` holds out, or of its sources if it holds nothing out."""
    rows: Dataset = measured_rows(load_data(section, tokenizer))
    return rows


def measured_rows(data: Data) -> Any:
    """What is held out, or all rows where nothing is."""
    return data.train if data.held_out is None else data.held_out


def open_teacher(path: Path, model: ModelSection, given: str | None, *, vocabulary: int, registry: Registry) -> Models:
    """The teacher to compare with, opened as student and teacher in one; its config.json has been read.

    Args:
        path: the stored model, for messages.
        model: model section of its recipe.
        given: name of another teacher, or None.
        vocabulary: tokens of the stored model.
        registry: loaded plugins.

    Raises:
        CheckpointError: there is no such teacher, or the recipe leads into the folder that it came with, which it is
            not trusted to do.
        PlanError: the teacher has another vocabulary.
    """
    name = given or model.teacher_name
    if given is None and Path(name).resolve().is_relative_to(path.resolve()):
        raise CheckpointError(f"{name}: lies inside the checkpoint {path}; give a teacher with --teacher")
    section = ModelSection(name_or_path=name, revision=model.revision_of(name), teacher_dtype=model.teacher_dtype)
    models = Models(section, registry)
    if (theirs := models.teacher.vocabulary_size) != vocabulary:
        raise PlanError(f"{name}: has a vocabulary of {theirs} tokens, the checkpoint {vocabulary}")
    return models
