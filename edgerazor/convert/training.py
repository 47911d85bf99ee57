"""What the original's file says beside quantizers and losses: which parameters are trained, how much is logged."""

from typing import Any

from edgerazor.convert.reading import Findings, OldSection
from edgerazor.schemas.messages import describe


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
