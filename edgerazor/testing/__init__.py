"""Conformance checks for plugin authors: each holds a component to the laws of its contract.

`check_quantizer`, `check_loss`, `check_selector`, `check_adapter` and `check_exporter` take the parameters of a
component, build it as a recipe does, and raise `BrokenLawError`, an AssertionError that names the law. They need the
package hypothesis.
"""

from edgerazor.testing.adapter import check_adapter
from edgerazor.testing.exporter import check_exporter
from edgerazor.testing.laws import BrokenLawError
from edgerazor.testing.loss import check_loss
from edgerazor.testing.quantizer import check_quantizer
from edgerazor.testing.selector import check_selector

__all__ = ["BrokenLawError", "check_adapter", "check_exporter", "check_loss", "check_quantizer", "check_selector"]
