"""What the original quantizes: its `select` section and its overrides, module by module."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from edgerazor.convert.modules import OldModule, decoder, mixture, omni
from edgerazor.convert.patterns import matches, unclear_ending
from edgerazor.convert.reading import Entry, Findings, OldSection
from edgerazor.schemas.messages import describe, nearest

# Names of release 1.3.0 and, with `kv_cache` in their place, of 1.3.5.
_ATTENTIONS = {
    "kv_cache": "",
    "llamaattention": "",
    "qwen3attention": "",
    "qwen3moeattention": "mixture",
    "qwen2_5omniattention": "omni",
}
_OLMOE = ("olmoeattention", "olmoeflashattention2", "olmoesdpaattention")
_NEVER = {
    **{f"conv{axes}d": "convolutions are not quantized" for axes in (1, 2, 3)},
    "multiheadattention": "nn.MultiheadAttention is not quantized",
    **dict.fromkeys(_OLMOE, "no adapter covers OLMoE"),
}
_TYPES = ["linear", "embedding", *_ATTENTIONS, *_NEVER]


@dataclass(frozen=True)
class Override:
    """Settings for the modules of one type, of names that match, or both.

    Attributes:
        path: of the override as a whole.
        kind: module type, or None for any.
        pattern: of full names, or None for any.
        settings: what it replaces, by the original's keys.
    """

    path: str
    kind: str | None
    pattern: Entry | None
    settings: Mapping[str, Entry]

    def takes(self, module: OldModule) -> bool:
        """Whether the original merges it into the settings of this module; without type and name it never does."""
        if self.kind is None and self.pattern is None:
            return False
        if self.kind is not None and self.kind != module.kind:
            return False
        return self.pattern is None or matches(self.pattern.value, module.name)


@dataclass
class Selection:
    """Types and patterns of the `select` section.

    Attributes:
        targets, excluded: module types.
        target_names, excluded_names: patterns of full names.
        kv_cache: whether keys and values are quantized.
        modules: every module that a pattern may meet.
    """

    targets: set[str] = field(default_factory=set)
    excluded: set[str] = field(default_factory=set)
    target_names: list[Entry] = field(default_factory=list)
    excluded_names: list[Entry] = field(default_factory=list)
    kv_cache: bool = False
    modules: list[OldModule] = field(default_factory=decoder)

    def takes(self, module: OldModule) -> bool:
        """Whether the original quantizes this module; exclusion goes before selection."""
        if module.kind in self.excluded or any(matches(pattern.value, module.name) for pattern in self.excluded_names):
            return False
        return module.kind in self.targets or any(matches(pattern.value, module.name) for pattern in self.target_names)


def read_selection(section: OldSection, overrides: list[Override], findings: Findings) -> Selection:
    """Read `select`; patterns of the overrides help to tell which family it is for."""
    families: set[str] = set()
    selection = Selection()
    for written in section.names("target_types"):
        named = _types(written, findings)
        for name in named:
            if name in ("linear", "embedding"):
                selection.targets.add(name)
            elif name in _ATTENTIONS:
                selection.kv_cache = True
                families |= {_ATTENTIONS[name]} if named == [written.value] else set()
            elif named == [written.value]:
                findings.problem(written.path, f"'{name}' has no counterpart: {_NEVER[name]}")
            else:
                findings.note(written.path, f"takes '{name}' as well: {_NEVER[name]}")
    for written in section.names("exclude_types"):
        selection.excluded |= set(_types(written, findings))
    selection.target_names = [written for written in section.names("target_names") if is_pattern(written, findings)]
    selection.excluded_names = [written for written in section.names("exclude_names") if is_pattern(written, findings)]
    section.refuse_the_rest()
    of_overrides = [override.pattern for override in overrides if override.pattern]
    patterns = [*selection.target_names, *selection.excluded_names, *of_overrides]
    selection.modules = _modules(families, [pattern.value for pattern in patterns])
    return selection


def is_pattern(written: Entry, findings: Findings) -> bool:
    """Whether it is a regular expression; one that ends in a number gets a note."""
    if not isinstance(written.value, str):
        findings.problem(written.path, f"expected a name, got {describe(written.value)}")
        return False
    try:
        re.compile(written.value)
    except re.error as error:
        findings.problem(written.path, f"'{written.value}' is no regular expression: {error}")
        return False
    if unclear_ending(written.value):
        findings.note(
            written.path,
            f"'{written.value}' takes every name that begins so, as in the original: also {written.value}0, "
            f"{written.value}1 and so on; end it with a dot to mean one",
        )
    return True


def _types(written: Entry, findings: Findings) -> list[str]:
    """Type names that an entry stands for; an unknown name is an expression that known ones match."""
    if written.value in _TYPES:
        return [written.value]
    try:
        found = [name for name in _TYPES if re.fullmatch(written.value, name)]
    except re.error as error:
        findings.problem(written.path, f"'{written.value}' is no regular expression: {error}")
        return []
    if not found:
        findings.problem(written.path, f"no module type is named '{written.value}'{nearest(written.value, _TYPES)}")
    return found


def _modules(families: set[str], patterns: list[str]) -> list[OldModule]:
    if "omni" in families or any(re.search("thinker|talker|token2wav", pattern) for pattern in patterns):
        return omni()
    if "mixture" in families or any("experts" in pattern for pattern in patterns):
        return mixture()
    return decoder()
