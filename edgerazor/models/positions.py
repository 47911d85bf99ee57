"""How many positions a model has, against how many are asked of it."""

from typing import Any

from edgerazor.errors import PlanError


def check_positions(config: Any, tokens: int, what: str) -> str | None:
    """Compare with `max_position_embeddings`; None if the tokens fit, or the model has no such limit.

    Args:
        config: of the model, as transformers has it.
        tokens: that one sequence holds.
        what: is so long, as the beginning of the message.

    Returns:
        A note where the rotation of positions is scaled, which may be meant to carry further.

    Raises:
        PlanError: more tokens than positions, and nothing is scaled.
    """
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    positions = getattr(text, "max_position_embeddings", None)
    if not isinstance(positions, int) or tokens <= positions:
        return None
    said = f"{what} {tokens} tokens, the model {positions} positions (max_position_embeddings)"
    if (kind := _scaling(text)) is not None:
        return f"{said}; its rotation is scaled ({kind}), and engines may refuse what is longer"
    raise PlanError(f"{said}; expected data.sequence_length of {positions} at most")


def _scaling(config: Any) -> str | None:
    """The kind of scaled rotation; None: there is none."""
    parameters = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kinds = [parameters, *(value for value in parameters.values() if isinstance(value, dict))]
    found = [str(kind.get("rope_type", kind.get("type", "default"))) for kind in kinds]
    return next((kind for kind in found if kind != "default"), None)
