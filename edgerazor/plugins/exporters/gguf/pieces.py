"""Sentencepiece scores from merges.

llama.cpp joins any two neighbours whose text is a token, best score first; a merge list joins listed pairs in their
order. Both give the same tokens if every pair that makes a token is listed and the pairs of one token stand together.
"""

from collections.abc import Collection, Sequence


def piece_scores(tokens: Collection[str], merges: Sequence[tuple[str, ...]]) -> tuple[dict[str, float], str]:
    """`{token: score}` of the tokens that merges make, first merge 0, then falling; and what does not fit, or "".

    Args:
        tokens: ordinary tokens, single characters included.
        merges: pairs in the order in which they are joined.
    """
    scores: dict[str, float] = {}
    pairs: dict[str, set[tuple[str, ...]]] = {}
    previous = None
    for pair in merges:
        made = "".join(pair)
        if made in scores and made != previous:
            return scores, _problem(made, "its merges do not stand together")
        scores.setdefault(made, -float(len(scores)))
        pairs.setdefault(made, set()).add(pair)
        previous = made
    for token in tokens:
        if len(token) < 2:
            continue
        if not all(character in tokens for character in token):
            return scores, _problem(token, "it holds a character that is no token")
        splits = ((token[:index], token[index:]) for index in range(1, len(token)))
        if {pair for pair in splits if pair[0] in tokens and pair[1] in tokens} != pairs.get(token, set()):
            return scores, _problem(token, "two tokens that make it up have no merge")
    return scores, ""


def _problem(token: str, reason: str) -> str:
    return f"tokenizer.json: {token!r}: {reason}; sentencepiece in llama.cpp would split text differently"
