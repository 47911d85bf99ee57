"""Whether a model predicts what a recipe's `data.task` asks for."""

from edgerazor.errors import RecipeError
from edgerazor.models.source import ModelSource
from edgerazor.schemas.data import DataSection


def check_task(section: DataSection, source: ModelSource) -> None:
    """Raise RecipeError unless the model predicts what the task asks for."""
    right = "image_classification" if source.classifies_images else "language_modeling"
    if section.task != right:
        raise RecipeError(f"data.task: is {section.task}, but {source.name} is a model for {right}")
