"""From a data section to rows: mixing, holding out, seeds, sums."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing

from edgerazor.data import load_data
from edgerazor.data.mixing import epoch_size, mix_sources
from edgerazor.errors import DataError
from edgerazor.schemas.data import DataSection


@pytest.fixture
def write_texts(write_lines):
    """`write_texts("a", 5)`: a file with documents a0 to a4."""

    def write(name, count):
        return write_lines([{"text": f"{name}{number}"} for number in range(count)], f"{name}.jsonl")

    return write


def load(tokenizer, sources, **section):
    return load_data(DataSection(sources=sources, **{"packing": False, "sequence_length": 32, **section}), tokenizer)


def texts_of(tokenizer, dataset):
    return [tokenizer.decode(row["input_ids"], skip_special_tokens=True) for row in dataset]


@given(
    st.lists(st.integers(1, 60), min_size=2, max_size=3).flatmap(
        lambda counts: st.tuples(
            st.just(counts), st.lists(st.integers(1, 9), min_size=len(counts), max_size=len(counts))
        )
    )
)
def test_an_epoch_is_the_largest_that_repeats_nothing(case):
    counts, weights = case
    tenths = [Fraction(weight, sum(weights)).limit_denominator(10) for weight in weights]
    if sum(tenths) != 1 or 0 in tenths:
        tenths = [Fraction(1, 2), *[Fraction(1, 2 * (len(counts) - 1))] * (len(counts) - 1)]
    ratios = [float(share) for share in tenths]
    exact = [Fraction(repr(ratio)) for ratio in ratios]
    size = epoch_size(counts, ratios)
    assert all(int(share * size) <= count for share, count in zip(exact, counts, strict=True))
    assert any(int(share * (size + 1)) > count for share, count in zip(exact, counts, strict=True))


def test_ratios_take_documents_once(tokenizer, write_texts):
    sources = [{"path": write_texts("a", 20), "ratio": 0.7}, {"path": write_texts("b", 20), "ratio": 0.3}]
    data = load(tokenizer, sources)
    texts = texts_of(tokenizer, data.train)
    assert len(texts) == len(set(texts))
    # the largest n with 0.7 n < 21 is 29; then the first source gives all its 20, the second 8
    assert data.usage.documents == (20, 8)
    assert [sum(text.startswith(name) for text in texts) for name in "ab"] == [20, 8]


def test_without_ratios_every_document_once(tokenizer, write_texts):
    data = load(tokenizer, [write_texts("a", 5), write_texts("b", 3)])
    assert sorted(texts_of(tokenizer, data.train)) == ["a0", "a1", "a2", "a3", "a4", "b0", "b1", "b2"]
    assert data.held_out is None


def test_a_ratio_that_gives_nothing_is_refused():
    with pytest.raises(
        DataError, match=r"b\.jsonl: an epoch of 9 documents would hold none of this source at ratio 0\.1"
    ):
        mix_sources([np.arange(8), np.arange(50)], [0.9, 0.1], ["a.jsonl", "b.jsonl"], seed=0)


@pytest.mark.parametrize("packing", [True, False])
def test_seed_decides_the_rows(tokenizer, write_texts, packing):
    sources = [{"path": write_texts("a", 40), "ratio": 0.5}, {"path": write_texts("b", 60), "ratio": 0.5}]
    first, again, other = (load(tokenizer, sources, seed=seed, packing=packing, held_out=0.1) for seed in (1, 1, 2))
    assert first.train[:] == again.train[:]
    assert first.held_out[:] == again.held_out[:]
    assert first.train[:] != other.train[:]
    assert first.held_out[:] != other.held_out[:]


def test_training_order_is_mixed(tokenizer, write_texts):
    texts = texts_of(tokenizer, load(tokenizer, [write_texts("a", 30), write_texts("b", 30)]).train)
    assert {text[0] for text in texts[:20]} == {"a", "b"}
    assert texts != sorted(texts)


def test_held_out_share_is_taken_of_every_source(tokenizer, write_texts):
    data = load(tokenizer, [write_texts("a", 20), write_texts("b", 3)], held_out=0.1)
    held, trained = texts_of(tokenizer, data.held_out), texts_of(tokenizer, data.train)
    assert sorted(text[0] for text in held) == ["a", "a", "b"]
    assert not set(held) & set(trained)
    assert len(held) + len(trained) == 23
    assert held == sorted(held, key=lambda text: (text[0], int(text[1:])))


def test_held_out_sources_of_their_own(tokenizer, write_texts):
    data = load(tokenizer, write_texts("a", 4), held_out=write_texts("b", 3))
    assert texts_of(tokenizer, data.held_out) == ["b0", "b1", "b2"]
    assert data.held_out_usage.documents == (3,)


def test_held_out_needs_documents_to_spare(tokenizer, write_texts):
    with pytest.raises(DataError, match=r"1 row, of which held_out 0\.1 would leave none to train on"):
        load(tokenizer, write_texts("a", 1), held_out=0.1)


def test_long_texts_are_cut_into_consecutive_pieces(tokenizer, write_lines):
    text = "".join(f"{number} " for number in range(100))
    data = load(tokenizer, write_lines([{"text": text}]), sequence_length=16)
    rows = list(data.train)
    assert "".join(tokenizer.decode(row["input_ids"]) for row in rows) == text + tokenizer.eos_token
    assert all(len(row["input_ids"]) == 16 for row in rows[:-1])
    assert data.usage.cut == 0


def test_tokens_that_the_tokenizer_puts_around_appear_once(make_tokenizer, write_lines):
    tokenizer = make_tokenizer()
    begin, end = "<|im_start|>", tokenizer.eos_token
    special = [(token, tokenizer.convert_tokens_to_ids(token)) for token in (begin, end)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{begin} $A {end}", special_tokens=special)
    for rows in ([{"text": "hello"}], [{"messages": [{"role": "assistant", "content": "hello"}]}]):
        (row,) = load(tokenizer, write_lines(rows)).train
        assert tokenizer.decode(row["input_ids"]) == f"{begin}hello{end}"
        assert row["labels"] == [-100, *row["input_ids"][1:]]
        assert row["label_bytes"] == len("hello")


TEXTS = st.lists(
    st.text(st.sampled_from("abc \n.é你🙂"), min_size=1, max_size=60).filter(str.strip), min_size=1, max_size=6
)


@pytest.mark.parametrize("packing", [True, False])
def test_label_bytes_are_the_text_but_for_first_tokens(tokenizer, write_lines, packing):
    @given(TEXTS, st.integers(8, 20))
    def check(texts, length):
        path = write_lines([{"text": text} for text in texts])
        data = load(tokenizer, path, packing=packing, sequence_length=length)
        first = 0
        for text in texts:
            encoded = tokenizer(text, return_offsets_mapping=True)
            offsets = [*encoded["offset_mapping"], (len(text), len(text))]  # the end of the sequence stands for no text
            for start in range(0, len(offsets), length):
                begin = max([end for _, end in offsets[:start]], default=0)
                first += len(text[begin : max(begin, offsets[start][1])].encode())
        assert sum(data.train["label_bytes"]) == sum(len(text.encode()) for text in texts) - first

    check()


def test_usage_counts_what_the_rows_hold(tokenizer, write_texts):
    data = load(tokenizer, write_texts("a", 9), packing=True)
    rows = data.train[:]
    assert data.usage.tokens == sum(map(len, rows["input_ids"]))
    assert data.usage.labels == sum(label != -100 for labels in rows["labels"] for label in labels)
    assert (data.usage.empty, data.usage.cut, data.usage.unused) == (0, 0, 0)
