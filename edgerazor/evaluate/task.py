"""What `data.task` of a recipe stands for: how its rows are read and batched, and what makes numbers of its inputs."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from edgerazor.core.contracts import ModelFacts
from edgerazor.data import Collator, Data, load_data
from edgerazor.models.source import ModelSource
from edgerazor.models.special_tokens import padding_token
from edgerazor.models.task import check_task
from edgerazor.schemas.data import DataSection


class Task(ABC):
    """Rows of one task for one model.

    Attributes:
        processor: tokenizer, or image processor; it is saved beside the model.
        collator: makes batches of rows as they are measured.
        training_collator: makes batches of rows as they are learned from.
    """

    processor: Any
    collator: Any
    training_collator: Any

    @abstractmethod
    def load(self, section: DataSection) -> Data:
        """The rows of a data section."""


class LanguageModeling(Task):
    """Texts, whose next token is predicted."""

    def __init__(self, source: ModelSource, vocabulary: int):
        self.processor, self._vocabulary = source.tokenizer, vocabulary
        self.collator = self.training_collator = Collator(padding_token(self.processor, vocabulary))

    def load(self, section: DataSection) -> Data:
        return load_data(section, self.processor, vocabulary_size=self._vocabulary)


class ImageClassification(Task):
    """Pictures, whose class is predicted."""

    def __init__(self, section: DataSection, source: ModelSource, facts: ModelFacts, labels: Mapping[str, int]):
        from edgerazor.data.images import ImageCollator

        assert facts.image is not None
        self.processor, self._labels, self._channels = source.image_processor, labels, facts.image.channels
        self.collator = ImageCollator(facts.context)
        self.training_collator = ImageCollator(facts.context, mixup=section.images.mixup)

    def load(self, section: DataSection) -> Data:
        from edgerazor.data.images import Classes, load_images

        return load_images(section, self.processor, classes=Classes(self._labels), channels=self._channels)


def task_of(section: DataSection, source: ModelSource, facts: ModelFacts, config: Any) -> Task:
    """The task of a data section.

    Args:
        section: of the recipe.
        source: of the model; gives tokenizer or image processor.
        facts: of the model.
        config: of the model, as transformers has it or as config.json does.

    Raises:
        RecipeError: the model is for another task.
        CheckpointError: there is no tokenizer or image processor that can be used, or it is another model's.
    """
    check_task(section, source)
    if section.task == "language_modeling":
        return LanguageModeling(source, facts.vocab)
    values: Mapping[str, Any] = config if isinstance(config, Mapping) else config.to_dict()
    names = values.get("label2id") or {f"LABEL_{number}": number for number in range(facts.vocab)}
    return ImageClassification(section, source, facts, names)
