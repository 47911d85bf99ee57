"""Which turns are kept: each filter by what it lets through, and near duplicates against all pairs."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthesize_cases import assistant, user

from edgerazor.errors import RecipeError
from edgerazor.schemas.synthesis import SelfPrompting, build_synthesis_settings
from edgerazor.synthesize.drafts import Answer, Draft, Prompt, RefusalError
from edgerazor.synthesize.filters import Filters, repetition, script_share
from edgerazor.synthesize.similarity import SimilarityIndex, normalize, stretches

GOOD = "Which rivers flow through Vienna and Budapest?"
WORDS = st.lists(st.sampled_from(["red", "green", "blue", "cat", "dog", "ß", "你好", "Ａ"]), max_size=12).map(" ".join)


def similarity(first: str, second: str) -> float:
    ours, theirs = stretches(first), stretches(second)
    return len(ours & theirs) / len(ours | theirs)


def refused(text: str, reason: str = "stop", kept: tuple[str, ...] = (), **limits: object) -> str | None:
    """The kind of the filter that refuses a question; None: it passes."""
    limits_of_run = SelfPrompting.model_validate(limits)
    index = SimilarityIndex(limits_of_run.max_similarity)
    for other in kept:
        index.add(other, other)
    draft = Draft(Prompt("ab" * 32, ({"role": "user"}, {"role": "assistant"}), "x"))
    draft.add(Answer(text, reason))
    try:
        Filters(limits_of_run, index).check(draft)
    except RefusalError as error:
        assert draft.refusal(error).messages == (user(text),)
        return error.kind
    return None


@pytest.mark.parametrize(
    ("kind", "text", "more"),
    [
        (None, GOOD, {}),
        ("unfinished", GOOD, {"reason": "length"}),
        ("length", " ok ", {}),
        ("length", GOOD, {"max_question": len(GOOD) - 1}),
        (None, GOOD, {"max_question": len(GOOD)}),
        ("broken", GOOD.replace("V", "\ufffd"), {}),
        ("repetition", "tell me about it " * 5, {}),
        (None, "tell me about it " * 5, {"max_repetition": 0.9}),
        ("script", "Расскажи мне о Вене, please", {"script": "latin"}),
        (None, "Расскажи мне о Вене", {"script": "cyrillic"}),
        (None, "Qu'est-ce que l'été à Zürich: 25 °C?", {"script": "latin"}),
        ("duplicate", GOOD.upper().replace(" ", " - "), {"kept": (GOOD,)}),
        ("duplicate", GOOD.replace("Budapest", "Bucharest"), {"kept": ("Why?", GOOD)}),
        (None, "Who painted the ceiling of the Sistine Chapel?", {"kept": (GOOD,)}),
        (None, GOOD.replace("Budapest", "Bucharest"), {"kept": (GOOD,), "max_similarity": 1.0}),
    ],
)
def test_a_filter_refuses_what_it_is_for(kind: str | None, text: str, more: dict[str, object]) -> None:
    assert refused(text, **more) == kind  # type: ignore[arg-type]


def test_an_answer_has_limits_of_its_own_and_is_not_compared() -> None:
    index = SimilarityIndex(0.7)
    index.add(GOOD, "candidate 1")
    draft = Draft(Prompt("ab" * 32, (user(GOOD), {"role": "assistant"}), "x"))
    draft.add(Answer("No.", "stop"))
    Filters(SelfPrompting(), index).check(draft)
    with pytest.raises(RefusalError, match="the answer has 3 characters; allowed are 4 to 20000"):
        Filters(SelfPrompting(min_answer=4), index).check(draft)
    assert draft.written_messages() == [user(GOOD), assistant("No.")]


@given(WORDS, st.integers(2, 6))
def test_what_is_said_again_counts_as_repetition(text: str, times: int) -> None:
    """Between 0 and 1, never less for more of the same; a long loop is nearly all repetition."""
    shares = [repetition(f"{text} " * count) for count in range(1, times + 1)]
    assert all(0 <= share < 1 for share in shares)
    assert all(first <= second + 1e-12 for first, second in pairwise(shares))
    assert not text.strip() or repetition(f"{text} " * 100) > 0.9


def test_scripts_without_blanks_have_words_too() -> None:
    assert repetition("今天天气很好" * 10) > 0.8
    assert repetition("今天天气很好我们去公园走一走") == 0.0


@pytest.mark.slow
@given(st.text(max_size=30))
def test_shares_of_scripts_are_shares(text: str) -> None:
    latin, greek = script_share(text, "latin"), script_share(text, "greek")
    assert 0 <= latin <= 1 and 0 <= greek <= 1
    assert script_share(f"{text}abc", "latin") >= min(latin, 1e-9)
    assert latin + greek <= 1 or not any(letter.isalpha() for letter in text)


@given(st.lists(WORDS, min_size=1, max_size=12), WORDS, st.sampled_from([0.2, 0.5, 0.7, 1.0]))
def test_the_index_finds_what_comparing_all_pairs_finds(kept: list[str], text: str, threshold: float) -> None:
    index = SimilarityIndex(threshold)
    for number, other in enumerate(kept):
        index.add(other, str(number))
    best = max(similarity(text, other) for other in kept)
    found = index.find(text)
    if best >= threshold:
        assert found is not None and found[1] == best
        assert similarity(text, kept[int(found[0])]) == best
    else:
        assert found is None


@given(WORDS)
def test_punctuation_case_and_width_are_no_difference(text: str) -> None:
    assert normalize(f" ({text.upper()}!) ") == normalize(text)
    index = SimilarityIndex(1.0)
    index.add(text, "kept")
    assert index.find(f"{text.title()}?") == ("kept", 1.0)


def test_limits_that_cannot_be_are_named() -> None:
    section = {"max_similarity": 0, "script": "latim", "min_answr": 3}
    with pytest.raises(RecipeError) as caught:
        build_synthesis_settings(writer="local", model="m", self_prompted=section)
    assert "did you mean 'min_answer'?" in str(caught.value) and "self_prompted.max_similarity: " in str(caught.value)
    with pytest.raises(RecipeError, match="no script 'latim'; did you mean 'latin'"):
        build_synthesis_settings(writer="local", model="m", self_prompted={"script": "latim"})
    with pytest.raises(RecipeError, match="min_question is above max_question"):
        build_synthesis_settings(writer="local", model="m", self_prompted={"min_question": 9, "max_question": 8})
