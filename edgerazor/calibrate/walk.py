"""Layer by layer and matrix by matrix: each is rounded on what the rounded ones before it give.

What it is to give is what the 16-bit model has there, so it makes up for errors before it as far as it can.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import torch
from torch import Tensor

from edgerazor.calibrate.decoder import Decoder
from edgerazor.calibrate.gptq import codes_of
from edgerazor.calibrate.head import Head
from edgerazor.calibrate.inputs import InputMoments, Inputs
from edgerazor.calibrate.journal import Journal
from edgerazor.calibrate.layer_inputs import LayerInputs
from edgerazor.calibrate.round_head import head_codes, tied_codes
from edgerazor.calibrate.rounded_layer import RoundedLayer
from edgerazor.calibrate.stored_tensors import StoredTensors
from edgerazor.calibrate.two_weights import TwoWeights
from edgerazor.core.tensor import QuantizedTensor


@torch.no_grad()
def round_layers(
    decoder: Decoder,
    rows: list[Tensor],
    journal: Journal,
    show: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Find the codes of every matrix in the decoder layers, and keep them in the journal; what it holds is not redone.

    Where the whole model is in memory, matrices of the decoder layers hold the values of their codes afterwards.

    Args:
        decoder: of the model.
        rows: token ids `[1, T]`.
        journal: of these rows.
        show: called with layers done and layers in all; the head counts as one.

    Raises:
        PlanError: a quantizer cannot be calibrated.
    """
    if journal.done is None:
        _begin(decoder, rows, journal)
    else:
        next(iter(decoder.begin(rows[:1])))  # counts how often the model runs each layer
    layers = len(decoder.layers)
    total = layers + (decoder.head is not None)
    follows = decoder.head is not None and not decoder.head.tied  # a head that is rounded on what the last layer gives
    for index in range(journal.done or 0, layers):
        show(index, total)
        codes = _round_layer(decoder, index, journal, last=index + 1 == layers and not follows)
        journal.finish(index, codes)
    if decoder.head is not None and journal.done == layers:
        show(layers, total)
        journal.finish(layers, {decoder.head.owner: _codes_of_head(decoder, decoder.head, journal)})
    show(total, total)


def _begin(decoder: Decoder, rows: list[Tensor], journal: Journal) -> None:
    """Write the states in front of the first layer, and find the codes of an embedding that is the head's weight, too.

    The layers make up for the errors of an embedding, so that its codes have to be known before theirs.
    """
    journal.unrounded_states(0).write(decoder.begin(rows, lambda weight: weight))
    if decoder.head is None or not decoder.head.tied:
        journal.states(0).write(decoder.begin(rows))
        return
    codes = tied_codes(decoder, decoder.head, journal)
    journal.keep(decoder.head.owner, codes)
    journal.states(0).write(decoder.begin(rows, lambda _: codes.dequantize(torch.float32)))


def _codes_of_head(decoder: Decoder, head: Head, journal: Journal) -> QuantizedTensor:
    """Of a head with a weight of its own they are found last, on what the rounded layers give."""
    last = len(decoder.layers)
    codes = journal.kept(head.owner) if head.tied else head_codes(decoder, head, journal)
    for states in (journal.states(last + 1), journal.unrounded_states(last + 1)):
        states.write([])
    return codes


def _round_layer(decoder: Decoder, index: int, journal: Journal, *, last: bool) -> dict[str, QuantizedTensor]:
    """Codes of a layer's matrices; states are taken through it as it was and, unless it is the last, rounded."""
    entries = decoder.entries[decoder.layers[index]]
    states = journal.states(index)
    codes: dict[str, QuantizedTensor] = {}
    with decoder.layer(index):
        weights = TwoWeights({entry.name: decoder.matrix(entry) for entry in entries})
        inputs = LayerInputs(decoder, index, next(iter(states)))
        wanted, rounded = _unrounded(inputs, index, journal), RoundedLayer(inputs, journal.outputs_file)
        for place, together in enumerate(inputs.sets):
            moments = InputMoments(weights.unrounded[together.entries[0].name] if together.added else None)
            for given, unrounded in zip(rounded.inputs_of(place, states), wanted[place], strict=True):
                moments.add(given, Inputs(*unrounded))
            wanted[place].remove()
            own = moments.own
            for entry in together.entries:
                weight, quantizer = moments.matched(weights.unrounded[entry.name]), decoder.quantizers[entry.name]
                codes[entry.name] = codes_of(entry.name, weight, own, quantizer)
                weights.put(entry.name, codes[entry.name].dequantize(torch.float32))
        for entry in entries:
            if entry.name not in codes:  # no input is known of what the first row does not use
                codes[entry.name] = decoder.quantizers[entry.name].quantize(weights.unrounded[entry.name])
                weights.put(entry.name, codes[entry.name].dequantize(torch.float32))
        journal.states(index + 1).write([] if last else rounded.behind(states))
        rounded.remove()
    return codes


def _unrounded(inputs: LayerInputs, index: int, journal: Journal) -> list[StoredTensors]:
    """What the sets of a layer are given in the 16-bit model, through which states are taken."""
    stored = [StoredTensors(journal.inputs_file(place)) for place in range(len(inputs.sets))]

    def behind() -> Iterator[Tensor]:
        with ExitStack() as stack:
            files = [stack.enter_context(of_one_set.written()) for of_one_set in stored]
            for states in journal.unrounded_states(index):
                seen, output = inputs.of_all(states)
                for add, of_set in zip(files, seen, strict=True):
                    add(of_set.parts)
                yield output

    journal.unrounded_states(index + 1).write(behind())
    return stored
