"""Conformance checks for plugin authors: each holds a component to the laws of its contract.

`check_quantizer`, `check_loss`, `check_selector`, `check_adapter` and `check_exporter` take the parameters of a component,
build it as a recipe does, and raise `LawBroken`, an AssertionError that names the law. They need the package hypothesis.
"""

from edgerazor.testing.laws import LawBroken
from edgerazor.testing.quantizer import check_quantizer

__all__ = ["LawBroken", "check_quantizer"]
