"""How tokens are chosen, and that their text does not depend on how it is cut into tokens."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerazor.inference.continuation import Continuation, TextStream
from edgerazor.inference.sampling import Sampler, Sampling, nucleus
from tests.runs import tokenizer

WORDS = tokenizer()
LOGITS = np.linspace(-3, 3, 50, dtype=np.float32)


@given(st.text(max_size=40))
def test_pieces_join_to_the_text_and_no_character_is_cut(text: str) -> None:
    ids = WORDS(text, add_special_tokens=False)["input_ids"]
    stream = TextStream(WORDS.decode)
    pieces = [stream.add(token) for token in ids]
    assert "".join(pieces) + stream.finish() == WORDS.decode(ids)
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


def test_an_incomplete_character_at_the_end_is_replaced() -> None:
    ids = WORDS("naïve 🙂", add_special_tokens=False)["input_ids"][:-1]
    stream = TextStream(WORDS.decode)
    assert "".join(stream.add(token) for token in ids) == "naïve "
    assert stream.finish() == "\ufffd"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=3000), st.floats(0, 0.999))
def test_a_nucleus_is_the_fewest_largest_weights(values: list[float], top_p: float) -> None:
    weights = np.array(values, dtype=np.float32) + np.float32(1e-9)
    weights /= weights.sum()
    kept = np.sort(weights[nucleus(weights, top_p)])[::-1]
    assert np.array_equal(kept, np.sort(weights)[::-1][: len(kept)])
    assert kept.sum() >= top_p - 1e-5 and kept[:-1].sum() <= top_p + 1e-5


@pytest.mark.parametrize("shift", [-200, 0, 60, 500])
@pytest.mark.parametrize("top_p", [0.5, 1.0])
def test_what_is_added_to_all_logits_changes_nothing(shift: float, top_p: float) -> None:
    sampling = Sampling(temperature=1.0, seed=3, top_p=top_p)
    plain, moved = Sampler(sampling), Sampler(sampling)
    assert [plain.choose(LOGITS) for _ in range(40)] == [moved.choose(LOGITS + np.float32(shift)) for _ in range(40)]


def test_penalties_change_what_was_chosen_before() -> None:
    plain, presence = Sampler(Sampling()), Sampler(Sampling(presence_penalty=0.5))
    often = Sampler(Sampling(frequency_penalty=0.05))
    assert [plain.choose(LOGITS) for _ in range(3)] == [49, 49, 49]
    assert len({presence.choose(LOGITS) for _ in range(4)}) == 4
    # A step between logits is 0.12: at the third time it is outweighed.
    assert [often.choose(LOGITS) for _ in range(4)] == [49, 49, 49, 48]


@pytest.mark.parametrize("temperature", [1e-300, 1e-9, 0.01])
def test_a_tiny_temperature_takes_the_likeliest(temperature: float) -> None:
    assert Sampler(Sampling(temperature, seed=2)).choose(LOGITS) == 49


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    logits = np.zeros(1300, dtype=np.float32)
    logits[[3, 600, 1299]] = np.log([4000, 2000, 2000])
    logits[700:800] = -np.inf
    sampler = Sampler(Sampling(1.0, seed=0))
    drawn = np.bincount([sampler.choose(logits) for _ in range(4000)], minlength=1300) / 4000
    expected = np.exp(logits - np.log(np.exp(logits).sum()))
    assert np.abs(drawn - expected).max() < 0.03
    assert not drawn[700:800].any() and (drawn[:700] > 0).sum() > 100


@pytest.mark.parametrize("top_p", [0.05, 0.6, 0.9])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_tokens_of_a_nucleus_are_drawn_as_often_as_they_are_likely(top_p: float, temperature: float) -> None:
    logits = np.log(np.array([1, 8, 2, 4, 8, 1, 4, 2] * 90, dtype=np.float32)) + np.linspace(
        0, 1, 720, dtype=np.float32
    )
    expected = np.exp(logits / temperature)
    kept = nucleus(expected, top_p)
    expected[np.setdiff1d(np.arange(720), kept)] = 0
    sampler = Sampler(Sampling(temperature, seed=5, top_p=top_p))
    drawn = np.bincount([sampler.choose(logits) for _ in range(3000)], minlength=720)
    assert not drawn[expected == 0].any()
    quarters = np.array_split(np.arange(len(kept)), 4)
    shares = [(drawn[kept[part]].sum() / 3000, expected[kept[part]].sum() / expected.sum()) for part in quarters]
    assert all(abs(found - wanted) < 0.035 for found, wanted in shares)


def test_of_equal_weights_a_nucleus_takes_the_first() -> None:
    sampler = Sampler(Sampling(1.0, seed=1, top_p=0.45))
    assert {sampler.choose(np.zeros(10, dtype=np.float32)) for _ in range(200)} == {0, 1, 2, 3, 4}


def test_top_p_leaves_the_tail_out() -> None:
    sampler = Sampler(Sampling(1.0, seed=1, top_p=0.2))
    assert {sampler.choose(LOGITS) for _ in range(100)} <= {48, 49}


def test_a_continuation_ends_at_a_stop_token_or_its_length() -> None:
    fed: list[list[int]] = []

    def feed(ids: list[int]) -> np.ndarray:
        fed.append(list(ids))
        return np.eye(9, dtype=np.float32)[[len(fed)]]

    whole = Continuation(feed, [7, 7], Sampling(), stop_ids=frozenset({4}), most=10)
    assert list(whole) == [1, 2, 3] and whole.ended and fed == [[7, 7], [1], [2], [3]]
    fed.clear()
    short = Continuation(feed, [7], Sampling(), stop_ids=frozenset({4}), most=2)
    assert list(short) == [1, 2] and not short.ended
