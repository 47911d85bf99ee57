"""Tokenized documents into the rows that are trained on."""

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from datasets import Dataset
from datasets.table import InMemoryTable

from edgerazor.data.packing import pack_pieces
from edgerazor.data.tokens import Tokens

IGNORE_INDEX = -100
_ROWS_PER_CHUNK = 4096  # bounds the memory beside the table, and the offsets of an Arrow list


@dataclass(frozen=True)
class Pieces:
    """Stretches of documents that are seen on their own.

    Attributes:
        starts, lengths: int64 `[pieces]`, into the arrays of `Tokens`.
        unused: documents of which no token can be predicted.
    """

    starts: np.ndarray
    lengths: np.ndarray
    unused: int


def cut_pieces(tokens: Tokens, order: np.ndarray, sequence_length: int) -> Pieces:
    """Cut documents into consecutive pieces of at most `sequence_length` tokens.

    A piece without a label behind its first token, which nothing predicts, would teach nothing and is left out.

    Args:
        tokens: all documents.
        order: int64 `[documents]`: the order in which they are used.
        sequence_length: tokens of a piece at most.
    """
    document_starts = np.cumsum(tokens.lengths) - tokens.lengths
    counts = -(-tokens.lengths[order] // sequence_length)
    documents = np.repeat(order, counts)
    within = (np.arange(len(documents)) - np.repeat(np.cumsum(counts) - counts, counts)) * sequence_length
    starts = document_starts[documents] + within
    lengths = np.minimum(tokens.lengths[documents] - within, sequence_length)
    labels_before = np.concatenate([[0], np.cumsum(tokens.is_label, dtype=np.int64)])
    useful = labels_before[starts + lengths] > labels_before[starts + 1]
    unused = len(order) - len(np.unique(documents[useful]))
    return Pieces(starts[useful], lengths[useful], unused)


def build_dataset(tokens: Tokens, pieces: Pieces, sequence_length: int, *, packing: bool) -> Dataset:
    """Rows in memory: `input_ids`, `labels`, `label_bytes` and, when packing, `position_ids`.

    Rows are not padded (the collator does that). The label of a piece's first token is -100; with packing the position
    starts again at 0 there, which is where attention stops. `label_bytes` counts the text bytes of the labels left.
    """
    rows = (
        pack_pieces(pieces.lengths, sequence_length) if packing else [[piece] for piece in range(len(pieces.lengths))]
    )
    chunks = [
        _table(tokens, pieces, rows[first : first + _ROWS_PER_CHUNK], packing)
        for first in range(0, max(len(rows), 1), _ROWS_PER_CHUNK)
    ]
    table = pa.concat_tables(chunks)
    return Dataset(InMemoryTable(table), fingerprint=_fingerprint(table))


def _table(tokens: Tokens, pieces: Pieces, rows: list[list[int]], packing: bool) -> pa.Table:
    order = np.array([piece for row in rows for piece in row], dtype=np.int64)
    starts, lengths = pieces.starts[order], pieces.lengths[order]
    piece_starts = np.cumsum(lengths) - lengths
    positions = np.arange(int(lengths.sum())) - np.repeat(piece_starts, lengths)
    source = np.repeat(starts, lengths) + positions
    is_label = tokens.is_label[source]
    is_label[piece_starts] = False
    ids = tokens.ids[source]
    pieces_before = np.cumsum([0, *map(len, rows)])
    ends = np.concatenate([piece_starts, [len(ids)]])[pieces_before]
    label_bytes = np.concatenate([[0], np.cumsum(np.where(is_label, tokens.text_bytes[source], 0), dtype=np.int64)])
    columns = {
        "input_ids": _lists(ends, ids),
        "labels": _lists(ends, np.where(is_label, ids, IGNORE_INDEX)),
        "label_bytes": pa.array(np.diff(label_bytes[ends])),
    }
    if packing:
        columns["position_ids"] = _lists(ends, positions)
    return pa.table(columns)


def _lists(ends: np.ndarray, values: np.ndarray) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(ends.astype(np.int32)), pa.array(values.astype(np.int32)))


def _fingerprint(table: pa.Table) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for batch in table.to_batches():
        for column in batch.columns:
            for buffer in column.buffers():
                digest.update(buffer if buffer is not None else b"")
    return digest.hexdigest()
