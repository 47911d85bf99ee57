"""The image processor of a model, tried before anything is read: it may be that of another model."""

from typing import Any

from edgerazor.core.contracts import ImageFacts
from edgerazor.errors import CheckpointError, first_line


def check_processor(processor: Any, image: ImageFacts | None, name: str) -> None:
    """Make numbers of one blank picture, as the model is given them.

    Args:
        processor: image processor of transformers.
        image: what the model takes; None where that is not known.
        name: of the model's folder, for messages.

    Raises:
        CheckpointError: the model is given neither grey nor coloured pictures, or the processor makes something else
            of a picture than the model takes.
    """
    from PIL import Image

    if image is None:
        return
    if image.channels not in (1, 3):
        raise CheckpointError(f"{name}: takes pictures of {image.channels} channels; expected 1 (grey) or 3 (coloured)")
    blank = Image.new("L" if image.channels == 1 else "RGB", (image.width + 1, image.height + 2))
    wanted = (image.channels, image.height, image.width)
    sizes = f"the model takes {_times(wanted)} numbers (channels, height, width)"
    try:
        found = tuple(processor(images=blank, return_tensors="pt")["pixel_values"][0].shape)
    except Exception as error:  # settings that contradict each other may raise anything in there
        raise CheckpointError(f"{name}: preprocessor_config.json: {first_line(error)}; {sizes}") from error
    if found[:1] != wanted[:1] or not (image.any_size or found == wanted):
        raise CheckpointError(f"{name}: preprocessor_config.json makes {_times(found)} numbers; {sizes}")


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
