"""Codes of the output head: last of all, or first where its weight is the embedding's."""

from collections.abc import Iterable

from torch import Tensor

from edgerazor.calibrate.decoder import Decoder
from edgerazor.calibrate.gptq import codes_of
from edgerazor.calibrate.head import Head
from edgerazor.calibrate.inputs import InputMoments
from edgerazor.calibrate.journal import Journal
from edgerazor.core.layers.matrices import join_rows
from edgerazor.core.tensor import QuantizedTensor

_LARGEST_INT8 = 127
_WEIGHTS_AT_ONCE = 2**26  # in float32 a quarter of a gigabyte, several times over


def head_codes(decoder: Decoder, head: Head, journal: Journal) -> QuantizedTensor:
    """Of a head with a weight of its own, which makes up for the errors of the layers as far as it can."""
    last = len(decoder.layers)
    moments = decoder.head_moments(zip(journal.states(last), journal.unrounded_states(last), strict=True))
    return _codes_in_parts(decoder, head, moments)


def tied_codes(decoder: Decoder, head: Head, journal: Journal) -> QuantizedTensor:
    """Of an embedding that is the head, too, on what the layers of the 16-bit model give.

    It is looked up as well, so it makes up for nothing: what a head would need there is no part of an embedding. Of
    eight bits in all rows it is rounded as it is: that costs next to nothing, and the model is run once less.
    """
    with decoder.head_weight() as weight:
        if min(head.quantizer.widths(tuple(weight.shape))) >= _LARGEST_INT8:
            return head.quantizer.quantize(weight)
    states: Iterable[Tensor] = journal.unrounded_states(0)
    for index in range(len(decoder.layers)):
        ahead = journal.states_ahead(index + 1)
        with decoder.layer(index) as through:
            ahead.write(map(through, states))
        journal.states_ahead(index).path.unlink(missing_ok=True)
        states = ahead
    moments = decoder.head_moments((row, row) for row in states)
    ahead.path.unlink()
    return _codes_in_parts(decoder, head, moments)


def _codes_in_parts(decoder: Decoder, head: Head, moments: InputMoments) -> QuantizedTensor:
    """As `codes_of`, some rows at a time where they are independent: a head has very many."""
    with decoder.head_weight() as weight:
        rows_at_once = max(_WEIGHTS_AT_ONCE // weight.shape[1], 1)
        whole = not head.quantizer.rows_independent or len(weight) <= rows_at_once
        parts = [
            codes_of(head.owner, moments.matched(rows), moments.own, head.quantizer)
            for rows in ([weight] if whole else weight.split(rows_at_once))
        ]
    return parts[0] if whole else join_rows(parts)
