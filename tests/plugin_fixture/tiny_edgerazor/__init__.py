"""A third party's whole registration: two parameter schemas and two hooks; nothing heavy is imported."""

from typing import ClassVar, Literal

from edgerazor import LossParams, QuantizerParams, hookimpl


class BinaryParams(QuantizerParams):
    """Signs times one scale per group."""

    target: ClassVar[str] = "tiny_edgerazor.binary:Binary"
    name: Literal["tiny.binary"] = "tiny.binary"
    shrink: float = 1.0


class L1Params(LossParams):
    """Mean absolute difference of logits."""

    target: ClassVar[str] = "tiny_edgerazor.l1:L1"
    name: Literal["tiny.l1"] = "tiny.l1"


@hookimpl
def edgerazor_quantizers():
    return [BinaryParams]


@hookimpl
def edgerazor_losses():
    return [L1Params]
