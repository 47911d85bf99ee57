"""Reading the original's sections: every key is asked for or reported, and all findings are kept for one report."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from edgerazor.core.registry import Registry
from edgerazor.schemas.components import Kind, unknown_component
from edgerazor.schemas.messages import describe, nearest


@dataclass
class Findings:
    """What was found on the way, in order and once each.

    Attributes:
        problems: keys that have no counterpart, each with its path.
        notes: what changes without harm, or was left to a default, each with its path.
    """

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def problem(self, path: str, said: str) -> None:
        _add(self.problems, f"{path}: {said}")

    def note(self, path: str, said: str) -> None:
        _add(self.notes, f"{path}: {said}")


def _add(lines: list[str], line: str) -> None:
    if line not in lines:
        lines.append(line)


@dataclass(frozen=True)
class Entry:
    """A value and the key path where the file writes it."""

    value: Any
    path: str


class OldSection:
    """The keys of one mapping of the original's file."""

    def __init__(self, content: Any, path: str, findings: Findings):
        self.path, self.findings = path, findings
        self._asked: list[str] = []
        self._content: Mapping[Any, Any] = content if isinstance(content, Mapping) else {}
        if content is not None and not isinstance(content, Mapping):
            findings.problem(path, f"expected keys with values, got {describe(content)}")

    def __contains__(self, key: str) -> bool:
        return key in self._content

    def keys(self) -> list[Any]:
        """Keys in the order of the file."""
        return list(self._content)

    def where(self, key: str) -> str:
        """Key path of a key."""
        return f"{self.path}.{key}" if self.path else key

    def get(self, key: str, default: Any = None) -> Entry:
        """Value of a key, or the original's default."""
        self._asked.append(key)
        return Entry(self._content.get(key, default), self.where(key))

    def number(self, key: str, default: float) -> float:
        """A number; as in the original, text that reads as one counts (YAML takes `1e-5` for text)."""
        written = self.get(key, default)
        return as_number(written, self.findings, default)

    def names(self, key: str) -> list[Entry]:
        """A list of names, each with its path."""
        written = self.get(key, [])
        items = [] if written.value is None else written.value
        if isinstance(items, str) or not isinstance(items, (list, tuple)):
            self.findings.problem(written.path, f"expected a list of names, got {describe(items)}")
            return []
        found = [Entry(item, f"{written.path}[{index}]") for index, item in enumerate(items)]
        for name in found:
            if not isinstance(name.value, str):
                self.findings.problem(name.path, f"expected a name, got {describe(name.value)}")
        return [name for name in found if isinstance(name.value, str)]

    def refuse_the_rest(self, also: Iterable[str] = ()) -> None:
        """Report every key that was not asked for."""
        known = [*self._asked, *also]
        for key in self._content:
            if key not in known:
                self.findings.problem(self.where(str(key)), f"is no key of the original{nearest(str(key), known)}")


def as_number(written: Entry, findings: Findings, default: float) -> float:
    """The value as a number, or `default` after a problem was reported."""
    value = written.value
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            pass
    findings.problem(written.path, f"expected a number, got {describe(value)}")
    return default


def checked(
    kind: Kind,
    values: dict[str, Any],
    *,
    registry: Registry,
    findings: Findings,
    paths: Mapping[str, str],
    path: str,
) -> dict[str, Any] | None:
    """`values` if a component of that name takes them; else None, and why, at the original's key.

    Args:
        values: `name` and parameters of one component, nested components included.
        paths: where the original writes a parameter, by its name here.
        path: where it writes the component as a whole.
    """
    declared = registry.declared(kind, values["name"])
    if declared is None:
        findings.problem(path, unknown_component(registry, kind, values["name"]))
        return None
    try:
        declared.model_validate(values, context={"registry": registry})
    except ValidationError as error:
        for line in error.errors():
            where = next((paths[str(part)] for part in reversed(line["loc"]) if str(part) in paths), None)
            findings.problem(where or paths.get("", path), line["msg"])
        return None
    return values


def check_method(section: OldSection, expected: str, findings: Findings) -> None:
    """`method` names the section again."""
    written = section.get("method", expected)
    if str(written.value).upper() != expected:
        findings.problem(written.path, f"expected {expected}, got {describe(written.value)}")


def training_of(section: OldSection, findings: Findings) -> dict[str, Any]:
    """`training: all` trains every parameter, which is the default here; the original reads no other value."""
    written = section.get("training", "all")
    if written.value == "quantized":
        findings.note(written.path, "the original trains all parameters whatever it says; the recipe obeys")
        return {"train_parameters": "quantized"}
    if written.value != "all":
        findings.problem(written.path, f"expected all, or quantized for a recipe, got {describe(written.value)}")
    return {}


def note_log_level(section: OldSection, findings: Findings) -> None:
    """Logging belongs to a command, not to a recipe."""
    written = section.get("log_level")
    if written.value is not None:
        findings.note(written.path, "left out: a recipe says nothing about logging")
