"""Laws of packing and of what a row counts: nothing learned is lost, doubled or seen across a boundary."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerazor.data.boundaries import overlaps
from edgerazor.data.rows import build_dataset, cut_segments, pack_sequences
from edgerazor.data.tokens import Tokens, count_text_bytes

DOCUMENT = st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=1, max_size=40)
TEXT = st.text(st.sampled_from("ab \n.é你🙂🙃ﬁ"), min_size=1, max_size=40)


def tokens_of(documents):
    """Every token of all documents has an id of its own, so that it can be recognised in a row."""
    parts, first = [], 0
    for document in documents:
        flags, counts = zip(*document, strict=True)
        ids = np.arange(first, first + len(document), dtype=np.int32)
        parts.append(Tokens.of(ids, np.array(flags), np.array(counts, dtype=np.int32)))
        first += len(document)
    return Tokens.join(parts)


def pieces_by_hand(documents, length):
    """Ids of every segment that has a label behind its first token."""
    segments, first = [], 0
    for document in documents:
        for start in range(0, len(document), length):
            segment = document[start : start + length]
            if any(flag for flag, _ in segment[1:]):
                segments.append(list(range(first + start, first + start + len(segment))))
        first += len(document)
    return segments


def split_at_restarts(row):
    starts = [index for index, position in enumerate(row["position_ids"]) if position == 0]
    return [row["input_ids"][a:b] for a, b in zip(starts, [*starts[1:], len(row["input_ids"])], strict=True)]


@given(st.lists(st.integers(1, 24), max_size=60))
def test_every_piece_has_one_row_and_no_row_overflows(lengths):
    rows = pack_sequences(np.array(lengths, dtype=np.int64), 24)
    assert sorted(segment for row in rows for segment in row) == list(range(len(lengths)))
    sums = [sum(lengths[segment] for segment in row) for row in rows]
    assert all(total <= 24 for total in sums)
    # best fit leaves no two rows that would fit into one
    assert all(a + b > 24 for index, a in enumerate(sums) for b in sums[:index])
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)


def test_rows_are_nearly_full():
    lengths = np.random.default_rng(0).integers(1, 1025, 20_000)
    rows = pack_sequences(lengths, 1024)
    assert lengths.sum() / (len(rows) * 1024) > 0.99


@given(st.lists(DOCUMENT, min_size=1, max_size=12), st.integers(2, 16), st.booleans(), st.randoms())
def test_rows_hold_every_piece_once(documents, length, packing, random):
    tokens = tokens_of(documents)
    order = list(range(len(documents)))
    random.shuffle(order)
    segments = cut_segments(tokens, np.array(order), length)
    expected = pieces_by_hand(documents, length)
    if not expected:
        assert len(segments.starts) == 0
        return
    dataset = build_dataset(tokens, segments, length, packing=packing)
    seen = []
    for row in dataset:
        stretches = split_at_restarts(row) if packing else [row["input_ids"]]
        assert sum(map(len, stretches)) <= length
        for stretch in stretches:
            offset = row["input_ids"].index(stretch[0])
            labels = row["labels"][offset : offset + len(stretch)]
            if packing:
                assert row["position_ids"][offset : offset + len(stretch)] == list(range(len(stretch)))
            assert labels == [-100, *(token if tokens.is_label[token] else -100 for token in stretch[1:])]
        assert row["label_bytes"] == sum(int(tokens.text_bytes[label]) for label in row["labels"] if label != -100)
        seen += stretches
    assert sorted(seen) == sorted(expected)


def test_many_rows_are_joined_from_chunks(monkeypatch):
    monkeypatch.setattr("edgerazor.data.rows._ROWS_PER_CHUNK", 3)
    tokens = tokens_of([[(True, 1)] * size for size in (5, 2, 7, 8, 3, 3, 6, 2, 8, 8)])
    segments = cut_segments(tokens, np.arange(10), 8)
    chunked = build_dataset(tokens, segments, 8, packing=True)
    monkeypatch.undo()
    whole = build_dataset(tokens, segments, 8, packing=True)
    assert len(chunked) == 7
    assert chunked[:] == whole[:]


def test_fingerprint_tells_contents_apart():
    tokens = tokens_of([[(True, 1)] * 5, [(True, 1)] * 4])
    fingerprints = {
        build_dataset(tokens, cut_segments(tokens, np.array(order), 8), 8, packing=True)._fingerprint
        for order in ([0, 1], [1, 0], [0, 1])
    }
    assert len(fingerprints) == 2


@given(TEXT)
def test_bytes_of_all_tokens_are_the_bytes_of_the_text(tokenizer, text):
    encoded = tokenizer(text, return_offsets_mapping=True)
    counts = count_text_bytes(text, np.array(encoded["offset_mapping"]).reshape(-1, 2))
    assert counts.sum() == len(text.encode())
    assert (counts >= 0).all()
    # every byte belongs to the token that finishes no earlier than the character it is part of begins
    ends = np.cumsum(counts)
    for (first, _), end in zip(encoded["offset_mapping"], ends, strict=True):
        assert end > len(text[:first].encode())


@pytest.mark.parametrize(
    ("offsets", "expected"),
    [
        ([(0, 1), (1, 2), (1, 2), (2, 3)], [1, 2, 0, 1]),  # é in two tokens
        ([(0, 1), (1, 3)], [1, 3]),
        ([(0, 0), (1, 2), (2, 3)], [0, 3, 1]),  # a token without text, then one whose leading character was trimmed
        ([], []),
    ],
)
def test_bytes_by_hand(offsets, expected):
    assert count_text_bytes("aéb", np.array(offsets, dtype=np.int64).reshape(-1, 2)).tolist() == expected


def test_overlaps_takes_tokens_that_straddle_a_span():
    offsets = np.array([(0, 0), (0, 2), (2, 4), (4, 6), (6, 6), (6, 8)])
    assert overlaps(offsets, [(3, 6)]).tolist() == [False, False, True, True, False, False]
