"""Facts of the model that is exported, and the refusals that both formats share."""

from edgerazor.core.contracts import Checkpoint, ModelFacts
from edgerazor.errors import CheckpointError, ExportError


def stated_facts(checkpoint: Checkpoint) -> ModelFacts:
    """What the family's adapter says of the checkpoint's configuration.

    Raises:
        ExportError: config.json lacks keys or holds no numbers in them.
    """
    try:
        return checkpoint.facts
    except CheckpointError as error:
        raise ExportError(str(error)) from error


def short_windows(facts: ModelFacts, context_length: int) -> dict[int, list[int]]:
    """`{window: layers}` of the layers that attend to less than a context of that many positions."""
    found: dict[int, list[int]] = {}
    for layer, window in enumerate(facts.windows):
        if window is not None and window < context_length:
            found.setdefault(window, []).append(layer)
    return found


def name_layers(layers: list[int]) -> str:
    """`layer 3`, or `layers 0, 2 and 5 more`."""
    shown = ", ".join(str(layer) for layer in layers[:3])
    more = f" and {len(layers) - 3} more" if len(layers) > 3 else ""
    return f"layer{'s' if len(layers) > 1 else ''} {shown}{more}"
