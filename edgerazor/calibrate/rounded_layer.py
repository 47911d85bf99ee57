"""A layer whose matrices are rounded one set after another: what is computed once is not computed again.

To know what the next matrices are given, all rows go through the layer anew. Matrices that are rounded give what they
gave before: it is in files. So do whole parts of the layer of which no matrix is left, such as its attention. Not so
where the model runs a layer twice in a row: what it is given the second time changes with every matrix that is rounded.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

from torch import Tensor

from edgerazor.calibrate.inputs import Inputs
from edgerazor.calibrate.layer_inputs import LayerInputs
from edgerazor.calibrate.recorded_outputs import RecordedOutputs


class RoundedLayer:
    """Rows through a layer, as far as its matrices are rounded.

    Args:
        inputs: of the layer.
        file: path by the place of a set, for what its matrices give.
    """

    def __init__(self, inputs: LayerInputs, file: Callable[[int], Path]):
        self._inputs = inputs
        kept = len(inputs.sets) - 1 if inputs.runs_once else 0
        self._outputs = [RecordedOutputs(inputs.finished(place), file(place)) for place in range(kept)]

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
        last = max(place - 1, 0)
        known, new = self._outputs[:last], self._outputs[last:place]
        needed = [outputs for index, outputs in enumerate(known) if not any(map(outputs.inside, known[index + 1 :]))]
        with ExitStack() as stack:
            contexts = [outputs.replayed() for outputs in needed]
            written = [stack.enter_context(outputs.written()) for outputs in new]
            for row in states:
                with ExitStack() as of_row:
                    for of_rows in contexts:
                        of_row.enter_context(next(of_rows))
                    for recording in written:
                        of_row.enter_context(recording())
                    yield row
