"""Weight rules that give every module what the original gives it; each translation is checked on the modules' names."""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from edgerazor.convert.modules import EMBEDDING, HEAD, OldModule
from edgerazor.convert.patterns import first_match, globs_of, matches
from edgerazor.convert.quantizers import weight_quantizer
from edgerazor.convert.reading import Entry, Findings
from edgerazor.convert.selection import Override, Selection
from edgerazor.core.registry import Registry

Settings = Mapping[str, Entry]
Quantizer = dict[str, Any] | None
Rule = tuple[list[str], Quantizer]
_PARTS = {EMBEDDING: "*.embed_tokens", HEAD: "lm_head"}


class RuleMaker:
    """Turns a selection, settings and overrides into rules of which the first match wins."""

    def __init__(
        self,
        selection: Selection,
        base: Settings,
        overrides: Sequence[Override],
        *,
        path: str,
        registry: Registry,
        findings: Findings,
    ):
        self.path = path
        self.selection, self.base, self.overrides = selection, base, overrides
        self.registry, self.findings = registry, findings
        self.body = [module for module in selection.modules if module.part == "body"]
        self._made: dict[tuple[Any, ...], Quantizer] = {}

    def rules(self) -> list[Rule]:
        """The rules; empty where a problem was found or nothing is selected."""
        before = len(self.findings.problems)
        wanted = {module.name: self._wanted(module) for module in self.selection.modules}
        rules = self._body_rules()
        if len(self.findings.problems) > before or not any(wanted.values()):
            return []
        rules = self._part_rules(rules, wanted) + rules
        rules = _merged(self._pruned(rules, wanted))
        self._check(rules, wanted)
        self._say_what_stays(wanted)
        return rules

    def _settings(self, overrides: Sequence[Override]) -> Settings:
        merged = dict(self.base)
        for override in overrides:
            merged |= override.settings
        return merged

    def _wanted(self, module: OldModule) -> Quantizer:
        if not self.selection.takes(module):
            return None
        return self._quantizer([override for override in self.overrides if override.takes(module)])

    def _quantizer(self, overrides: Sequence[Override]) -> Quantizer:
        """Converted once per combination, so that a problem is said once."""
        key = tuple(override.path for override in overrides)
        if key not in self._made:
            self._made[key] = weight_quantizer(self._settings(overrides), self.registry, self.findings)
        return self._made[key]

    def _body_rules(self) -> list[Rule]:
        rules: list[Rule] = []
        excluded = [glob for written in self.selection.excluded_names for glob in self._globs(written, required=False)]
        if excluded:
            rules.append((excluded, None))
        for override in self.overrides:
            self._check_that_it_takes_something(override)
        for override in reversed(self.overrides):
            if not any(override.takes(module) for module in self.body):
                continue
            globs = ["*"] if override.pattern is None else self._globs(override.pattern, required=True)
            if globs:
                rules.append((globs, self._given_by(override)))
        if "linear" in self.selection.targets - self.selection.excluded:
            rules.append((["*"], self._quantizer([])))
        else:
            named = [glob for written in self.selection.target_names for glob in self._globs(written, required=True)]
            rules += [(named, self._quantizer([]))] if named else []
        return rules

    def _given_by(self, override: Override) -> Quantizer:
        """What the modules get that this override settles: those that no later one takes."""
        later = self.overrides[self.overrides.index(override) + 1 :]
        settled = [
            module
            for module in self.body
            if self.selection.takes(module)
            and override.takes(module)
            and not any(other.takes(module) for other in later)
        ]
        found: list[Quantizer] = []
        for wanted in map(self._wanted, settled):
            found += [] if wanted in found else [wanted]
        return found[0] if len(found) == 1 else self._quantizer([override])

    def _globs(self, written: Entry, *, required: bool) -> list[str]:
        """Globs of the decoder's matrices; embedding and head have names of their own and are settled one by one."""
        taken = [module for module in self.selection.modules if matches(written.value, module.name)]
        if not taken:
            say = self.findings.problem if required else self.findings.note
            say(written.path, f"'{written.value}' takes no module of a family that is known here")
            return []
        if all(module.ours is None for module in taken):
            self.findings.note(written.path, f"'{written.value}' is never quantized here; left out")
            return []
        globs = globs_of(written.value, self.body)
        if globs is None:
            self.findings.problem(
                written.path, f"no glob takes the modules that '{written.value}' takes; write the weight rule by hand"
            )
        return globs or []

    def _check_that_it_takes_something(self, override: Override) -> None:
        if not any(override.takes(module) for module in self.selection.modules):
            where = override.pattern.path if override.pattern else override.path
            self.findings.problem(where, "the override takes no module of a family that is known here")

    def _part_rules(self, rules: Sequence[Rule], wanted: Mapping[str, Quantizer]) -> list[Rule]:
        """Rules of embedding and head where the others would not give them what they should get."""
        return [
            ([_PARTS[module.part]], wanted[module.name])
            for module in self.selection.modules
            if module.part in _PARTS and first_match(rules, str(module.ours)) != wanted[module.name]
        ]

    def _agree(self, rules: Sequence[Rule], wanted: Mapping[str, Quantizer]) -> OldModule | None:
        """The first module that the rules treat otherwise, or None."""
        for module in self.selection.modules:
            if module.ours is not None and first_match(rules, module.ours) != wanted[module.name]:
                return module
        return None

    def _pruned(self, rules: list[Rule], wanted: Mapping[str, Quantizer]) -> list[Rule]:
        """Without the rules that change nothing; a recipe's plan refuses some of those."""
        if self._agree(rules, wanted) is not None:
            return rules
        for rule in list(rules):
            others = [other for other in rules if other is not rule]
            if others and self._agree(others, wanted) is None:
                rules = others
        return rules

    def _check(self, rules: Sequence[Rule], wanted: Mapping[str, Quantizer]) -> None:
        wrong = self._agree(rules, wanted)
        if wrong is not None:
            self.findings.problem(
                self.path,
                f"no list of rules says the same: {wrong.name} gets {_named(wanted[wrong.name])} in the original, "
                f"{_named(first_match(rules, str(wrong.ours)))} here; write patterns that do not overlap",
            )

    def _say_what_stays(self, wanted: Mapping[str, Quantizer]) -> None:
        left = [module.name for module in self.selection.modules if module.ours is None and wanted[module.name]]
        for name in dict.fromkeys(re.sub(r"\.\d+", ".*", name) for name in left):
            self.findings.note(self.path, f"{name}: quantized by the original, stays at 16 bit here")


def _merged(rules: Sequence[Rule]) -> list[Rule]:
    """Neighbours with one quantizer as one rule, without globs that an earlier one of the same rule covers."""
    merged: list[Rule] = []
    for globs, quantizer in rules:
        if merged and merged[-1][1] == quantizer and "*" not in globs:
            known = merged[-1][0]
            known += [glob for glob in globs if not any(fnmatchcase(glob, other) for other in known)]
        else:
            merged.append((list(globs), quantizer))
    return merged


def _named(quantizer: Any) -> str:
    return "16 bit" if quantizer is None else " ".join(f"{key}={value}" for key, value in quantizer.items())
