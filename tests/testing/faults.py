"""How a test declares a component with a fault, and the laws that name it."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from edgerazor.core.discovery import load_plugins
from edgerazor.schemas.components import ComponentParams

REGISTRY = load_plugins(external=False)


def with_code(params: Any, code: type) -> Any:
    """The same parameters with other code behind them, as a third party would declare it."""
    target = f"{code.__module__}:{code.__qualname__}"
    declared: type[ComponentParams] = type(f"{code.__name__}Params", (type(params),), {"target": target})
    return declared(**{field: getattr(params, field) for field in type(params).model_fields})


def law_of(law: Callable[..., Any]) -> Callable[[type], type]:
    """Mark a faulty component with the law that it breaks."""

    def mark(code: type) -> type:
        code.breaks = law  # type: ignore[attr-defined]
        return code

    return mark


def faulty(module: Any) -> list[Any]:
    """One pytest parameter per component of a module that breaks a law."""
    found = [member for member in vars(module).values() if isinstance(member, type) and "breaks" in vars(member)]
    return [pytest.param(code, id=code.__name__) for code in found]


def unbroken(laws: Iterable[Callable[..., Any]], module: Any) -> set[str]:
    """Names of the laws that no component of the module breaks."""
    return {law.__name__ for law in laws} - {case.values[0].breaks.__name__ for case in faulty(module)}
