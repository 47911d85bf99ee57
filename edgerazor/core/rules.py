"""Which weight rule takes which module: the first whose globs match its name."""

import re
from collections.abc import Iterator, Sequence
from fnmatch import translate

from edgerazor.schemas.base import nearest
from edgerazor.schemas.quantization import WeightRule

_GLOB = re.compile(r"[*?\[]")


class MatchedRules:
    """Weight rules matched with the names of modules; every distinct glob meets every name once.

    Args:
        rules: in the order of the recipe.
        names: full names of all modules that a rule may take.

    Attributes:
        rule_of: `{module name: index of the rule that takes it}`, in the order of `names`.
    """

    def __init__(self, rules: Sequence[WeightRule], names: Sequence[str]):
        self._rules, self._names = rules, names
        self._known = frozenset(names)
        patterns = dict.fromkeys(pattern for rule in rules for pattern in rule.match)
        self._matched = {pattern: self._names_that_match(pattern) for pattern in patterns}
        first: dict[str, int] = {}
        for index, rule in enumerate(rules):
            for name in self._names_of(rule):
                first.setdefault(name, index)
        self.rule_of = {name: first[name] for name in names if name in first}

    def problems(self) -> Iterator[str]:
        """One line per glob that matches no module, and per rule whose modules earlier rules take."""
        used = set(self.rule_of.values())
        for index, rule in enumerate(self._rules):
            where = f"quantization.weights[{index}].match"
            for pattern in rule.match:
                if not self._matched[pattern]:
                    yield f"{where}: '{pattern}' matches no module{nearest(pattern, self._names)}"
            if self._names_of(rule) and index not in used:
                yield f"{where}: all modules it matches are taken by earlier rules; the first match wins"

    def _names_of(self, rule: WeightRule) -> set[str]:
        return set().union(*(self._matched[pattern] for pattern in rule.match))

    def _names_that_match(self, pattern: str) -> set[str]:
        if not _GLOB.search(pattern):
            return {pattern} & self._known
        matches = re.compile(translate(pattern)).match
        return {name for name in self._names if matches(name)}
