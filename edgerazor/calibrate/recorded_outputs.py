"""What modules give for every row, written down once and given again in place of computing it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from edgerazor.calibrate.hooks import removed, replaced_forward
from edgerazor.calibrate.stored_tensors import StoredTensors

# The place of a module among the recorded ones, and which parts of the tuple it gave are tensors; None for a tensor.
_Call = tuple[int, tuple[bool, ...] | None]


class RecordedOutputs:
    """Of some modules, in a file.

    Args:
        modules: whose outputs can be recorded.
        path: of the file.
    """

    def __init__(self, modules: Sequence[Any], path: Path):
        self._modules, self._tensors = modules, StoredTensors(path)
        self._calls: list[list[_Call]] = []

    def inside(self, outer: "RecordedOutputs") -> bool:
        """Whether all of these modules are parts of those of `outer`, so not called where the latter are replayed."""
        around = {id(module) for found in outer._modules for module in found.modules()}
        return all(id(module) in around for module in self._modules)

    @contextmanager
    def written(self) -> Iterator[Callable[[], AbstractContextManager[None]]]:
        """For the block the file is written anew; what is yielded makes a context in which the modules give a row."""
        self._calls = []
        with self._tensors.written() as write:
            yield lambda: self._recording(write)

    def replayed(self) -> Iterator[AbstractContextManager[None]]:
        """A context for every row, in which the modules give what they gave, one call after another."""
        for calls, tensors in zip(self._calls, self._tensors, strict=True):
            yield self._replaying(calls, iter(tensors))

    def remove(self) -> None:
        """The file is not needed any more."""
        self._tensors.remove()

    @contextmanager
    def _recording(self, write: Callable[[list[Tensor]], None]) -> Iterator[None]:
        calls: list[_Call] = []
        tensors: list[Tensor] = []

        def record(place: int, output: Any) -> None:
            parts = (output,) if isinstance(output, Tensor) else output
            there = tuple(part is not None for part in parts)
            calls.append((place, None if isinstance(output, Tensor) else there))
            tensors.extend(part.clone() for part in parts if part is not None)  # the model may go on in place

        hooks = [
            module.register_forward_hook(lambda _, __, output, place=place: record(place, output))
            for place, module in enumerate(self._modules)
        ]
        with removed(hooks):
            yield
        self._calls.append(calls)
        write(tensors)

    def _replaying(self, calls: list[_Call], tensors: Iterator[Tensor]) -> AbstractContextManager[None]:
        of_modules: list[list[Any]] = [[] for _ in self._modules]
        for place, there in calls:
            parts = (next(tensors),) if there is None else tuple(next(tensors) if found else None for found in there)
            of_modules[place].append(parts[0] if there is None else parts)
        left = [iter(outputs) for outputs in of_modules]
        return replaced_forward(self._modules, lambda place: lambda *_, **__: next(left[place]))


def can_be_recorded(output: Any) -> bool:
    """Whether a module gave a tensor, or a tuple of one tensor and None; probabilities of attention would be large."""
    parts = [part for part in output if part is not None] if type(output) is tuple else [output]
    return len(parts) == 1 and isinstance(parts[0], Tensor)
