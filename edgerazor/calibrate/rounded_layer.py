"""A layer whose matrices are rounded one set after another: what is multiplied once is not multiplied again.

To know what the next matrices are given, all rows go through the layer anew, and the model computes whatever is between
its matrices. Those that are rounded give what they gave before: it is in files. Not so where the model runs a layer
twice in a row: what it is given the second time changes with every matrix that is rounded.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from edgerazor.calibrate.hooks import removed, replaced_forward
from edgerazor.calibrate.inputs import Inputs
from edgerazor.calibrate.layer_inputs import LayerInputs
from edgerazor.calibrate.stored_tensors import StoredTensors


class RoundedLayer:
    """Rows through a layer, as far as its matrices are rounded.

    Args:
        inputs: of the layer.
        file: path by the place of a set, for what its matrices give.
    """

    def __init__(self, inputs: LayerInputs, file: Callable[[int], Path]):
        self._inputs = inputs
        kept = len(inputs.sets) - 1 if inputs.runs_once else 0
        self._outputs = [StoredTensors(file(place)) for place in range(kept)]

    def inputs_of(self, place: int, states: Iterable[Tensor]) -> Iterator[Inputs]:
        """Of the set at a place, row by row; those before it are rounded, and were asked for before."""
        for row in self._again(place, states):
            yield self._inputs.of(self._inputs.sets[place], row)

    def behind(self, states: Iterable[Tensor]) -> Iterator[Tensor]:
        """States behind the layer, when all of its sets were asked for and are rounded."""
        for row in self._again(len(self._inputs.sets), states):
            yield self._inputs.through(row)

    def remove(self) -> None:
        """The files are not needed any more."""
        for outputs in self._outputs:
            outputs.remove()

    def _again(self, place: int, states: Iterable[Tensor]) -> Iterator[Tensor]:
        """Rows; for each, sets give what they gave before, and what the one before `place` gives is written down."""
        sets = [self._inputs.matrices(together) for together in self._inputs.sets]
        last = place - 1
        with ExitStack() as stack:
            known = [(sets[before], iter(outputs)) for before, outputs in enumerate(self._outputs[: max(last, 0)])]
            new = range(max(last, 0), min(place, len(self._outputs)))
            written = [(sets[index], stack.enter_context(self._outputs[index].written())) for index in new]
            for row in states:
                with ExitStack() as of_row:
                    for matrices, outputs in known:
                        of_row.enter_context(_replayed(matrices, next(outputs)))
                    for matrices, write in written:
                        of_row.enter_context(_recorded(matrices, write))
                    yield row


@contextmanager
def _recorded(matrices: Sequence[Any], write: Callable[[list[Tensor]], None]) -> Iterator[None]:
    """After the block what the matrices gave is written, in the order of their calls."""
    seen: list[Tensor] = []
    hooks = [matrix.register_forward_hook(lambda _, __, output: seen.append(output)) for matrix in matrices]
    with removed(hooks):
        yield
    write(seen)


def _replayed(matrices: Sequence[Any], outputs: list[Tensor]) -> AbstractContextManager[None]:
    """For the block the matrices give these, one call after another."""
    left = iter(outputs)
    return replaced_forward(matrices, lambda _: lambda *_, **__: next(left))
