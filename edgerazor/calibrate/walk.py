"""Layer by layer and matrix by matrix: each is rounded on what the rounded ones before it give.

What it is to give is what the 16-bit model has there, so it makes up for errors before it as far as it can.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from edgerazor.calibrate.decoder import Decoder, InputSet
from edgerazor.calibrate.gptq import calibrated_codes
from edgerazor.calibrate.head import Head
from edgerazor.calibrate.inputs import InputMoments
from edgerazor.calibrate.journal import Journal
from edgerazor.calibrate.two_weights import TwoWeights
from edgerazor.core.contracts import Quantizer
from edgerazor.core.layers.matrices import join_rows
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import PlanError

_WEIGHTS_AT_ONCE = 2**26  # of a head; in float32 a quarter of a gigabyte, several times over


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
        journal.states(0).write(decoder.begin(rows))
        journal.unrounded_states(0).write(journal.states(0))
    else:
        next(iter(decoder.begin(rows[:1])))  # counts how often the model runs each layer
    layers = len(decoder.layers)
    total = layers + (decoder.head is not None)
    for index in range(journal.done or 0, layers):
        show(index, total)
        codes = _round_layer(decoder, index, journal, last=index + 1 == total)
        journal.finish(index, codes)
    if decoder.head is not None and journal.done == layers:
        show(layers, total)
        _round_head(decoder, decoder.head, journal)
    show(total, total)


def _round_layer(decoder: Decoder, index: int, journal: Journal, *, last: bool) -> dict[str, QuantizedTensor]:
    """Codes of a layer's matrices; unless it is the last, states are taken through it, rounded and as it was."""
    entries = decoder.entries[decoder.layers[index]]
    unrounded, states = journal.unrounded_states(index), journal.states(index)
    codes: dict[str, QuantizedTensor] = {}
    with decoder.layer(index) as through:
        weights = TwoWeights({entry.name: decoder.matrix(entry) for entry in entries})
        for together in decoder.input_sets(index, next(iter(states))) if entries else ():
            moments = _moments(decoder, index, together, journal, weights)
            for entry in together.entries:
                weight, quantizer = moments.matched(weights.unrounded[entry.name]), decoder.quantizers[entry.name]
                codes[entry.name] = codes_of(entry.name, weight, moments.own, quantizer)
                weights.put(entry.name, codes[entry.name].dequantize(torch.float32))
        for entry in entries:
            if entry.name not in codes:  # no input is known of what the first row does not use
                codes[entry.name] = decoder.quantizers[entry.name].quantize(weights.unrounded[entry.name])
                weights.put(entry.name, codes[entry.name].dequantize(torch.float32))
        journal.states(index + 1).write([] if last else map(through, states))
        with weights.as_they_were():
            journal.unrounded_states(index + 1).write([] if last else map(through, unrounded))
    return codes


def _moments(decoder: Decoder, index: int, together: InputSet, journal: Journal, weights: TwoWeights) -> InputMoments:
    """Of the inputs that matrices of a layer have in the rounded and in the 16-bit model."""
    moments = InputMoments()
    for row, unrounded in zip(journal.states(index), journal.unrounded_states(index), strict=True):
        with weights.as_they_were():
            wanted = decoder.inputs(index, together, unrounded)
        moments.add(decoder.inputs(index, together, row), wanted)
    return moments


def _round_head(decoder: Decoder, head: Head, journal: Journal) -> None:
    """As one layer more, whose codes are kept by the name of the weight's owner."""
    last = len(decoder.layers)
    both = zip(journal.states(last), journal.unrounded_states(last), strict=True)
    moments = decoder.head_moments(both)
    with decoder.head_weight() as weight:
        codes = _codes_in_parts(head, weight, moments)
    for states in (journal.states(last + 1), journal.unrounded_states(last + 1)):
        states.write([])
    journal.finish(last, {head.owner: codes})


def _codes_in_parts(head: Head, weight: Tensor, moments: InputMoments) -> QuantizedTensor:
    """As `codes_of`, some rows at a time where they are independent: a head has very many."""
    rows_at_once = max(_WEIGHTS_AT_ONCE // weight.shape[1], 1)
    whole = not head.quantizer.rows_independent or len(weight) <= rows_at_once
    parts = []
    for rows in [weight] if whole else weight.split(rows_at_once):
        # An embedding is looked up, too: what the head has to make up for is no part of it.
        matched = rows if head.tied else moments.matched(rows)
        parts.append(codes_of(head.owner, matched, moments.own, head.quantizer))
    return parts[0] if whole else join_rows(parts)


def codes_of(name: str, weight: Tensor, moments: Tensor, quantizer: Quantizer) -> QuantizedTensor:
    """As `calibrated_codes`, whose error then has the name of the matrix."""
    try:
        return calibrated_codes(weight, moments, quantizer)
    except PlanError as error:
        raise PlanError(f"{name}: {error}") from error
