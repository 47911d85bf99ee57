"""Tokenized documents into the rows that are trained on: cut into segments, and these packed, several to a row."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from datasets.table import InMemoryTable

from edgerazor.data.tokens import Tokens

IGNORE_INDEX = -100
_ROWS_PER_CHUNK = 4096  # bounds the memory beside the table, and the offsets of an Arrow list


@dataclass(frozen=True)
class Segments:
    """Stretches of documents that are seen on their own.

    Attributes:
        starts, lengths: int64 `[segments]`, into the arrays of `Tokens`.
        unused: documents of which no token can be predicted.
    """

    starts: np.ndarray
    lengths: np.ndarray
    unused: int


def cut_segments(tokens: Tokens, order: np.ndarray, sequence_length: int) -> Segments:
    """Cut documents into consecutive segments of at most `sequence_length` tokens.

    A segment without a label behind its first token, which nothing predicts, would teach nothing and is left out.

    Args:
        tokens: all documents.
        order: int64 `[documents]`: the order in which they are used.
        sequence_length: tokens of a segment at most.
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
    return Segments(starts[useful], lengths[useful], unused)


def pack_sequences(lengths: np.ndarray, capacity: int) -> list[list[int]]:
    """Sequence packing: distribute segments over rows that hold at most `capacity` tokens, so that few are wasted.

    Best fit by decreasing length, in near linear time: the longest segment goes first, each into the fullest row that
    has room. The result depends on the lengths alone.
    Within a row segments keep their order, and rows are ordered by their first segment, so shuffled documents give
    shuffled rows.

    Args:
        lengths: int64 `[segments]`, each between 1 and `capacity`.
        capacity: tokens of a row.

    Returns:
        The indices of the segments of every row; each index once.
    """
    rows: list[list[int]] = []
    rows_by_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms = 0  # bit r is set where a row with room for exactly r more tokens is open
    for segment in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[segment])
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = rows_by_room[room].pop()
            if not rows_by_room[room]:
                rooms &= ~(1 << room)
        else:
            room, row = capacity, len(rows)
            rows.append([])
        rows[row].append(segment)
        if room > length:
            rows_by_room[room - length].append(row)
            rooms |= 1 << (room - length)
    return sorted(sorted(row) for row in rows)


def build_dataset(tokens: Tokens, segments: Segments, sequence_length: int, *, packing: bool) -> Dataset:
    """Rows in memory: `input_ids`, `labels`, `label_bytes` and, when packing, `position_ids`.

    Rows are not padded (the collator does that). The label of a segment's first token is -100; with packing the
    position starts again at 0 there, which is where attention stops. `label_bytes` counts the text bytes of the labels
    left.
    """
    count = len(segments.lengths)
    rows = pack_sequences(segments.lengths, sequence_length) if packing else [[segment] for segment in range(count)]
    chunks = [
        _table(tokens, segments, rows[first : first + _ROWS_PER_CHUNK], packing)
        for first in range(0, max(len(rows), 1), _ROWS_PER_CHUNK)
    ]
    table = pa.concat_tables(chunks)
    return Dataset(InMemoryTable(table), fingerprint=_fingerprint(table))


def document_slices(row: Mapping[str, Any]) -> list[slice]:
    """Where the documents of a row lie that `build_dataset` made; without `position_ids` the whole row is one."""
    positions = row.get("position_ids") or ()
    starts = [0, *(place for place, position in enumerate(positions) if place and position == 0)]
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], len(row["input_ids"])], strict=True)]


def _table(tokens: Tokens, segments: Segments, rows: list[list[int]], packing: bool) -> pa.Table:
    order = np.array([segment for row in rows for segment in row], dtype=np.int64)
    starts, lengths = segments.starts[order], segments.lengths[order]
    segment_starts = np.cumsum(lengths) - lengths
    positions = np.arange(int(lengths.sum())) - np.repeat(segment_starts, lengths)
    source = np.repeat(starts, lengths) + positions
    is_label = tokens.is_label[source]
    is_label[segment_starts] = False
    ids = tokens.ids[source]
    segments_before = np.cumsum([0, *map(len, rows)])
    ends = np.concatenate([segment_starts, [len(ids)]])[segments_before]
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
