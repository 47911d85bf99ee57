"""Hidden states of a few layers of a decoder: the others are never held together."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


def decoder_layers(model: Any) -> nn.ModuleList | None:
    """The layers that a forward pass runs one after another, each once; None where that is not known."""
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    layers = getattr(decoder, "layers", None)
    return layers if type(layers) is nn.ModuleList else None


@contextmanager
def recorded_states(layers: nn.ModuleList, wanted: Collection[int]) -> Iterator[dict[int, Tensor]]:
    """Collect the states that are wanted in a forward pass inside the `with` block.

    Args:
        layers: of the decoder.
        wanted: 0 is the embedding output, l what layer l gives; the last one is not recorded, since the final norm
            follows it.
    """
    states: dict[int, Tensor] = {}

    def before_first(_: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        states[0] = arguments[0] if arguments else options["hidden_states"]

    def after(number: int) -> Any:
        def keep(_: nn.Module, __: Any, output: Any) -> None:
            states[number] = output[0] if isinstance(output, tuple) else output

        return keep

    inner = [number for number in wanted if 0 < number < len(layers)]
    handles = [layers[number - 1].register_forward_hook(after(number)) for number in inner]
    if 0 in wanted:
        handles.append(layers[0].register_forward_pre_hook(before_first, with_kwargs=True))
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()
