"""Modules that are listened to, or stood in for, while a block runs."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def removed(hooks: Iterable[Any]) -> Iterator[None]:
    """After the block these registered hooks are gone."""
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def replaced_forward(modules: Sequence[Any], forward_of: Callable[[int], Callable[..., Any]]) -> Iterator[None]:
    """For the block each module computes by what `forward_of` gives for its place among them; hooks are called."""
    for index, module in enumerate(modules):
        module.forward = forward_of(index)
    try:
        yield
    finally:
        for module in modules:
            del module.forward
