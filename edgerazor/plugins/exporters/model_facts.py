"""Facts of the model that is exported, and the refusals that both formats share."""

from collections.abc import Iterable, Sequence

from edgerazor.core.contracts import Checkpoint, ModelFacts, Rope
from edgerazor.errors import CheckpointError, ExportError


def stated_facts(checkpoint: Checkpoint, *, images: bool = False) -> ModelFacts:
    """What the family's adapter says of a language model's configuration, or with `images` of a classifier's too.

    Raises:
        ExportError: config.json lacks keys or holds no numbers in them, or the model is none that the format holds.
    """
    try:
        facts = checkpoint.facts
    except CheckpointError as error:
        raise ExportError(str(error)) from error
    if facts.image is not None and not images:
        raise ExportError(
            f"config.json: the model classifies images of {facts.image.channels} channels into {facts.vocab} classes, "
            "but this format holds language models; export it to ONNX, or load the packed folder in Transformers"
        )
    return facts


def short_windows(facts: ModelFacts, context_length: int) -> dict[int, int]:
    """`{layer: window}` of the layers that attend to less than a context of that many positions."""
    windows = enumerate(facts.windows)
    return {layer: window for layer, window in windows if window is not None and window < context_length}


def distinct_ropes(ropes: Iterable[Rope | None]) -> list[Rope]:
    """Each rotary embedding once, in the order of the layers."""
    found: list[Rope] = []
    for rope in ropes:
        if rope is not None and rope not in found:
            found.append(rope)
    return found


def name_layers(layers: Sequence[int]) -> str:
    """`layer 3`, `layers 0, 2 and 5 more`, or `no layer`."""
    if not layers:
        return "no layer"
    shown = ", ".join(str(layer) for layer in layers[:3])
    more = f" and {len(layers) - 3} more" if len(layers) > 3 else ""
    return f"layer{'s' if len(layers) > 1 else ''} {shown}{more}"
