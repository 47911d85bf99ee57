"""Which tokens end the turns that a model learns: what stops it afterwards."""

from itertools import islice
from typing import Any

import numpy as np

from edgerazor.data.rows import IGNORE_INDEX

_ROWS = 256  # more would show the same template again


def turn_ends(rows: Any, tokenizer: Any) -> set[int]:
    """Special tokens after which a stretch of labels ends, in the middle of a row: `<|im_end|>`, for example.

    The end of a row is none: a dialogue may have been cut there.

    Args:
        rows: of `load_data`; the first of them are looked at.
        tokenizer: says which tokens are special.
    """
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    ends: set[int] = set()
    for row in islice(rows, _ROWS):
        ids, learned = np.asarray(row["input_ids"]), np.asarray(row["labels"]) != IGNORE_INDEX
        ends |= set(ids[:-1][learned[:-1] & ~learned[1:]].tolist())
    return ends & special
