"""What this package adds to edgerazor. Importing it imports neither torch nor the code behind the declarations."""

from collections.abc import Iterable

from acme_edgerazor.params import EveryNthParams, Exaone4Params, FP4Params, NPZParams, TotalVariationParams
from edgerazor import AdapterParams, ExporterParams, LossParams, QuantizerParams, SelectorParams, hookimpl


@hookimpl
def edgerazor_quantizers() -> Iterable[type[QuantizerParams]]:
    return [FP4Params]


@hookimpl
def edgerazor_losses() -> Iterable[type[LossParams]]:
    return [TotalVariationParams]


@hookimpl
def edgerazor_selectors() -> Iterable[type[SelectorParams]]:
    return [EveryNthParams]


@hookimpl
def edgerazor_adapters() -> Iterable[type[AdapterParams]]:
    return [Exaone4Params]


@hookimpl
def edgerazor_exporters() -> Iterable[type[ExporterParams]]:
    return [NPZParams]
