"""The whole plugin contract: five hooks, each returns declarations (parameter schemas) of components."""

from collections.abc import Iterable

import pluggy

from edgerazor.schemas.components import AdapterParams, ExporterParams, LossParams, QuantizerParams, SelectorParams

PROJECT = "edgerazor"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def edgerazor_quantizers() -> Iterable[type[QuantizerParams]]:  # type: ignore[empty-body]
    """Quantizers: how a weight, an activation, a key or a value becomes codes and scales."""


@hookspec
def edgerazor_losses() -> Iterable[type[LossParams]]:  # type: ignore[empty-body]
    """Distillation losses between student and teacher."""


@hookspec
def edgerazor_selectors() -> Iterable[type[SelectorParams]]:  # type: ignore[empty-body]
    """Layer selectors: which hidden states a feature loss compares."""


@hookspec
def edgerazor_adapters() -> Iterable[type[AdapterParams]]:  # type: ignore[empty-body]
    """Model families: what is quantizable, how a forward pass is run, what role a parameter plays."""


@hookspec
def edgerazor_exporters() -> Iterable[type[ExporterParams]]:  # type: ignore[empty-body]
    """File formats that a packed checkpoint can be written to without rounding."""
