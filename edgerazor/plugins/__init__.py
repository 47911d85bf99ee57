"""Built-in components, declared through the same hooks as any third party's."""

from collections.abc import Iterable

from edgerazor.core.hookspecs import hookimpl
from edgerazor.plugins.exporters.params import CompressedTensorsParams, GGUFParams, MLXParams, ONNXParams
from edgerazor.plugins.losses.params import (
    AttentionRelationParams,
    CAKLDParams,
    EAKLDParams,
    FeatureCosineParams,
    FeatureMSEParams,
    ForwardKLParams,
    JSDParams,
    KeyValueRelationParams,
    ReverseKLParams,
    RouterZParams,
)
from edgerazor.plugins.quantizers.params import IntParams, SQMPParams, TernaryParams, UnsignedIntParams
from edgerazor.plugins.selectors.params import AllParams, FixedParams, LAFDParams
from edgerazor.schemas.components import ExporterParams, LossParams, QuantizerParams, SelectorParams


@hookimpl
def edgerazor_quantizers() -> Iterable[type[QuantizerParams]]:
    return [IntParams, TernaryParams, SQMPParams, UnsignedIntParams]


@hookimpl
def edgerazor_losses() -> Iterable[type[LossParams]]:
    return [
        EAKLDParams,
        CAKLDParams,
        ForwardKLParams,
        ReverseKLParams,
        JSDParams,
        FeatureMSEParams,
        FeatureCosineParams,
        AttentionRelationParams,
        KeyValueRelationParams,
        RouterZParams,
    ]


@hookimpl
def edgerazor_selectors() -> Iterable[type[SelectorParams]]:
    return [LAFDParams, FixedParams, AllParams]


@hookimpl
def edgerazor_exporters() -> Iterable[type[ExporterParams]]:
    return [CompressedTensorsParams, GGUFParams, MLXParams, ONNXParams]
