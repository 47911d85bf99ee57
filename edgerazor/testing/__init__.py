"""Conformance checks for plugin authors: each holds a component to the laws of its contract.

`check_quantizer`, `check_loss`, `check_selector`, `check_adapter` and `check_exporter` take the parameters of a
component, build it as a recipe does, and raise `BrokenLawError`, an AssertionError that names the law. They need the
package hypothesis.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

try:
    import hypothesis  # noqa: F401
except ModuleNotFoundError as missing:
    if missing.name != "hypothesis":
        raise
    raise ImportError("edgerazor.testing needs the package hypothesis: pip install hypothesis") from missing

if TYPE_CHECKING:
    from edgerazor.testing.adapter import check_adapter as check_adapter
    from edgerazor.testing.exporter import check_exporter as check_exporter
    from edgerazor.testing.laws import BrokenLawError as BrokenLawError
    from edgerazor.testing.loss import check_loss as check_loss
    from edgerazor.testing.quantizer import check_quantizer as check_quantizer
    from edgerazor.testing.selector import check_selector as check_selector

# Imported on first use: adapters and exporters need transformers, which takes seconds.
_HOMES = {
    "BrokenLawError": "laws",
    "check_adapter": "adapter",
    "check_exporter": "exporter",
    "check_loss": "loss",
    "check_quantizer": "quantizer",
    "check_selector": "selector",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgerazor.testing' has no attribute '{name}'")
    return getattr(import_module(f"edgerazor.testing.{_HOMES[name]}"), name)
