"""All kinds of layers that can be quantized. Whoever treats kinds apart asks this table; it is the only list."""

from collections.abc import Collection, Iterator

from torch import nn

from edgerazor.core.layers.conv import Conv
from edgerazor.core.layers.embedding import Embedding
from edgerazor.core.layers.experts import Experts
from edgerazor.core.layers.kind import LayerKind
from edgerazor.core.layers.linear import Linear

LAYER_KINDS: tuple[LayerKind, ...] = (Linear(), Embedding(), Experts(), Conv())


def kind_of(layer: nn.Module) -> LayerKind | None:
    """The kind of a layer, quantization-aware or not; None where no kind takes it."""
    return next((kind for kind in LAYER_KINDS if kind.matches(layer)), None)


def is_plain(module: nn.Module, names: Collection[str] | None = None) -> bool:
    """Whether a module is a layer of some kind and nothing more: a subclass may have a forward of its own.

    Args:
        names: of the kinds that are meant; None for all.
    """
    return any(kind.is_plain(module) for kind in LAYER_KINDS if names is None or kind.name in names)


def plain_layers(model: nn.Module, names: Collection[str]) -> Iterator[tuple[str, nn.Module]]:
    """Full name and module of every layer that is of one of these kinds and nothing more."""
    return ((name, module) for name, module in model.named_modules() if is_plain(module, names))


def kind_named(name: str) -> LayerKind:
    """The kind that plans call `name`."""
    return next(kind for kind in LAYER_KINDS if kind.name == name)


def packed_kind_of(module: nn.Module) -> LayerKind | None:
    """The kind whose packed module this is, with codes of its own or tied; None for any other module."""
    for kind in LAYER_KINDS:
        if isinstance(module, (kind.packed, *([kind.tied_packed] if kind.tied_packed else []))):
            return kind
    return None


def find_layer(model: nn.Module, name: str) -> nn.Module | None:
    """The layer of that full name, or the module of another kind that has the name; None if there is neither."""
    try:
        found = model.get_submodule(name)
    except AttributeError:
        found = None
    if found is not None and kind_of(found) is not None:
        return found
    return next((layer for kind in LAYER_KINDS if (layer := kind.find(model, name)) is not None), found)


def trained_layers(model: nn.Module) -> Iterator[nn.Module]:
    """All layers whose weight a quantizer is applied to."""
    for kind in LAYER_KINDS:
        yield from (layer for layer in kind.layers(model) if kind.quantizer(layer) is not None)
