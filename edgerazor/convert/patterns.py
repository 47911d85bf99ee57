"""Regular expressions of the original as globs of a recipe.

The original matches from the start of a name and lets anything follow, so `model.layers.1` takes layer 10 as well.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import product

from edgerazor.convert.modules import OldModule

# Where names of the original start and ours start differently.
_RENAMED = (("thinker.visual", "model.visual"), ("thinker.model", "model.language_model"), ("thinker.", ""))
_EXPERT = re.compile(r"(?<=experts)[.?][^.]+[.?](gate|up|down)(?=_proj)")
_TOKEN = re.compile(
    r"(?P<many>(?:\.|\\[dw]|\[[\w-]+\])[*+]\??)|(?P<dot>\.)|\\(?P<kind>[dw])|\\(?P<escaped>\W)|(?P<set>\[[\w-]+\])"
    r"|(?P<literal>[\w-])"
)


def matches(pattern: str, name: str) -> bool:
    """Whether the original takes a name: an equal one, or one that the expression matches from its start."""
    return pattern == name or re.match(pattern, name) is not None


def globs_of(pattern: str, modules: Collection[OldModule]) -> list[str] | None:
    """Globs that take exactly the modules that the pattern takes, by the names they have here.

    Returns an empty list if it takes none that a rule could, and None if no glob was found that says the same.

    Raises:
        re.error: it is no regular expression.
    """
    candidates = [module for module in modules if module.ours is not None]
    wanted = {module.ours for module in candidates if matches(pattern, module.name)}
    if not wanted:
        return []
    for globs in _attempts(pattern):
        found = {module.ours for module in candidates if any(fnmatchcase(str(module.ours), glob) for glob in globs)}
        if found == wanted:
            return [glob for glob in globs if any(fnmatchcase(str(name), glob) for name in found)]
    return None


def _attempts(pattern: str) -> Iterator[list[str]]:
    """Guesses from the plainest to the widest; a dot is a dot first, then any character."""
    bodies = _alternatives(pattern.removeprefix("^"))
    for dot in (".", "?"):
        stems = [_translated(body.removesuffix("$"), dot) for body in bodies]
        if any(stem is None for stem in stems):
            return
        plain = list(dict.fromkeys(_renamed(stem) for stem in stems if stem is not None))
        below = [f"{glob}.*" for glob in plain]
        longer = [glob if glob.endswith("*") else f"{glob}*" for glob in plain]
        yield from (plain, below, [*plain, *below], longer, [*below, *longer])


def _alternatives(pattern: str) -> list[str]:
    """`a(b|c)` as `ab` and `ac`; a pattern whose parentheses are of another sort comes back as it is."""
    parts = _split(pattern)
    if len(parts) > 1:
        return [alternative for part in parts for alternative in _alternatives(part)]
    start = pattern.find("(")
    if start < 0:
        return [pattern]
    end = _closing(pattern, start)
    inside = pattern[start + 1 : end].removeprefix("?:")
    if end < 0 or inside.startswith("?") or pattern[end + 1 : end + 2] in ("*", "+", "?", "{"):
        return [pattern]
    tails = _alternatives(pattern[end + 1 :])
    return [pattern[:start] + choice + tail for choice, tail in product(_alternatives(inside), tails)]


def _split(pattern: str) -> list[str]:
    parts, depth = [""], 0
    for character in pattern:
        depth += (character == "(") - (character == ")")
        if character == "|" and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _closing(pattern: str, start: int) -> int:
    depth = 0
    for index in range(start, len(pattern)):
        depth += (pattern[index] == "(") - (pattern[index] == ")")
        if depth == 0:
            return index
    return -1


def _translated(pattern: str, dot: str) -> str | None:
    glob, position = "", 0
    while position < len(pattern):
        token = _TOKEN.match(pattern, position)
        if token is None:
            return None
        if token["many"]:
            glob += "*"
        elif token["kind"]:
            glob += "[0-9]" if token["kind"] == "d" else "?"
        elif token["dot"]:
            glob += dot
        else:
            glob += token["escaped"] or token["set"] or token["literal"]
        position = token.end()
    return glob


def _renamed(glob: str) -> str:
    if glob.rstrip(".*?") == "thinker":
        return "*"
    glob = _EXPERT.sub(lambda found: ".down" if found[1] == "down" else ".gate_up", glob)
    for old, new in _RENAMED:
        if glob.startswith(old) or glob.startswith(old.replace(".", "?")):
            return new + glob[len(old) :]
    return glob


def unclear_ending(pattern: str) -> bool:
    """Whether a pattern ends in a number, so that it also takes numbers that begin with it."""
    return pattern[-1:].isdigit()


def first_match(rules: Sequence[tuple[Sequence[str], object]], name: str) -> object | None:
    """What the first of the rules (globs and a value) that takes a name gives it."""
    for globs, value in rules:
        if any(fnmatchcase(name, glob) for glob in globs):
            return value
    return None
