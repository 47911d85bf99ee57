"""Which documents of which source are held out, and which make an epoch."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from edgerazor.errors import DataError

HELD_OUT, EPOCH, ORDER = range(3)  # independent random streams of one seed


def generator(seed: int, stream: int, source: int = 0) -> np.random.Generator:
    """A random stream of its own for every purpose and source, so that one does not move the others."""
    return np.random.default_rng([seed, stream, source])


def split_held_out(count: int, share: float, path: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Documents to train on and documents held out (at least one), each in ascending order.

    Raises:
        DataError: nothing would be left to train on.
    """
    held = max(1, round(share * count))
    if held >= count:
        raise DataError(
            f"{path}: {count} row{'s' * (count != 1)}, of which held_out {share:g} would leave none to train on; "
            "expected more rows, or held-out sources of their own"
        )
    order = rng.permutation(count)
    return np.sort(order[held:]), np.sort(order[:held])


def epoch_size(counts: Sequence[int], ratios: Sequence[float]) -> int:
    """The largest n for which every source can give `floor(ratio * n)` documents without repeating one.

    Ratios are taken as the decimals that were written, so 0.7 of 10 is 7.
    """
    return min(-(-(count + 1) // _decimal(ratio)) - 1 for count, ratio in zip(counts, ratios, strict=True))


def mix_sources(
    available: Sequence[np.ndarray], ratios: Sequence[float | None], paths: Sequence[str], seed: int
) -> list[np.ndarray]:
    """Choose the documents of an epoch, in ascending order per source.

    Args:
        available: int64 `[documents]` per source.
        ratios: share of each source, or all None: every document once.
        paths: of the sources, for messages.
        seed: chooses which documents of a source are used.

    Raises:
        DataError: a source has so small a share that it would give nothing.
    """
    shares = [ratio for ratio in ratios if ratio is not None]
    if not shares:
        return list(available)
    size = epoch_size([len(documents) for documents in available], shares)
    chosen = []
    for number, (documents, share, path) in enumerate(zip(available, shares, paths, strict=True)):
        count = int(_decimal(share) * size)
        if count == 0:
            raise DataError(
                f"{path}: an epoch of {size} documents would hold none of this source at ratio {share:g}; "
                "expected more documents in the other sources, or another ratio"
            )
        rng = generator(seed, EPOCH, number)
        chosen.append(np.sort(rng.permutation(documents)[:count]))
    return chosen


def _decimal(ratio: float) -> Fraction:
    return Fraction(repr(ratio))
