"""Hidden states of a few layers of a decoder: the others are never held together."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


class HiddenStateRecorder:
    """Keeps the hidden states that are wanted of a forward pass without gradients.

    Args:
        layers: of the decoder, which run one after another, each once.
        wanted: 0 is the embedding output, l what layer l gives; the last one is not recorded, since the final norm
            follows it.
    """

    def __init__(self, layers: nn.ModuleList, wanted: Collection[int]):
        self._layers, self._wanted = layers, wanted
        self._states: dict[int, Tensor] = {}

    @classmethod
    def of(cls, model: Any, wanted: Collection[int] | None) -> "HiddenStateRecorder | None":
        """None where all are wanted, or where it is not known in which order the layers run."""
        decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
        layers = getattr(decoder, "layers", None)
        return None if wanted is None or type(layers) is not nn.ModuleList else cls(layers, wanted)

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Record the forward pass inside the `with` block."""

        def before_first(_: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
            self._states[0] = arguments[0] if arguments else options["hidden_states"]

        def after(number: int) -> Any:
            def keep(_: nn.Module, __: Any, output: Any) -> None:
                self._states[number] = output[0] if isinstance(output, tuple) else output

            return keep

        inner = [number for number in self._wanted if 0 < number < len(self._layers)]
        handles = [self._layers[number - 1].register_forward_hook(after(number)) for number in inner]
        if 0 in self._wanted:
            handles.append(self._layers[0].register_forward_pre_hook(before_first, with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def with_final(self, final: Tensor) -> tuple[Tensor, ...]:
        """L+1 states, `final` the last one; those that are not wanted are empty."""
        inner = (self._states.get(number, final.new_empty(0)) for number in range(len(self._layers)))
        return (*inner, final)
