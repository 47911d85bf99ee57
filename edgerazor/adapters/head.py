"""The last linear layer of a model, watched while the model runs, so that losses may run inside its forward."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from edgerazor.core.layers.linear import Interceptor, ProjectionLayer, make_linear
from edgerazor.core.outputs import Head
from edgerazor.errors import PlanError


@dataclass
class HeadInput:
    """What the output head was given in a forward pass, and the head."""

    hidden: Tensor | None = None
    head: Head | None = None


@contextmanager
def observed_head(
    module: Any,
    inside_head: Interceptor | None,
    *,
    divisor: float = 1.0,
    places: Callable[[Tensor], Tensor] = lambda hidden: hidden,
) -> Iterator[HeadInput]:
    """Within the block the head gives what `inside_head` returns, else one column instead of its logits.

    Args:
        module: the head, from `interceptable`.
        inside_head: given the hidden state and the head.
        divisor: what the model divides by what it gets, so that what `inside_head` returns is multiplied by it before.
        places: makes `[batch, seq, hidden]` of the hidden state where the model has another form.
    """
    seen = HeadInput()

    def intercept(given: Tensor, head: Head) -> Tensor:
        seen.hidden, seen.head = places(given), replace(head, divisor=divisor)
        return given[:, :1] if inside_head is None else inside_head(seen.hidden, seen.head) * divisor

    module.interceptor = intercept
    try:
        yield seen
    finally:
        module.interceptor = None


def interceptable(head: Any) -> Any:
    """An output head, able to be intercepted; a plain linear layer becomes so without changing its values.

    Raises:
        PlanError: it is no linear layer.
    """
    if type(head) is nn.Linear:
        make_linear(head, None, None)
    if not isinstance(head, ProjectionLayer):
        raise PlanError(f"the output head is {type(head).__name__}; only linear heads can be distilled")
    return head


def unwrapped(model: nn.Module) -> Any:
    """The transformers model inside what data-parallel wrappers made of it."""
    inner: Any = model
    while not hasattr(inner, "get_output_embeddings") and hasattr(inner, "module"):
        inner = inner.module
    return inner


def check_attentions(attentions: Any, model: nn.Module) -> None:
    """Raise PlanError if a forward pass kept no attention probabilities."""
    if not attentions or any(attention is None for attention in attentions):
        config = unwrapped(model).config
        implementation = getattr(config, "_attn_implementation", None)
        raise PlanError(
            f"a loss compares attentions, but the {config.model_type} model runs with attention '{implementation}', "
            "which keeps none; load it with eager attention"
        )
