"""Parameters of the built-in losses (METHOD 4)."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from edgerazor.schemas.components import LossParams, Reduction, SelectorSlot


class DivergenceParams(LossParams):
    """What all divergences of logits share."""

    temperature: Annotated[float, Field(gt=0)] = 1.0
    reduction: Reduction = "sequence_mean"


class ForwardKLParams(DivergenceParams):
    """KL(teacher, student)."""

    target: ClassVar[str] = "edgerazor.plugins.losses.kl:ForwardKL"
    name: Literal["forward_kl"] = "forward_kl"


class ReverseKLParams(DivergenceParams):
    """KL(student, teacher)."""

    target: ClassVar[str] = "edgerazor.plugins.losses.kl:ReverseKL"
    name: Literal["reverse_kl"] = "reverse_kl"


class EAKLDParams(DivergenceParams):
    """Forward and reverse KL balanced by gamma, the confidence of the teacher."""

    target: ClassVar[str] = "edgerazor.plugins.losses.eakld:EAKLD"
    name: Literal["eakld"] = "eakld"
    uniform_support: Annotated[
        float, Field(ge=2, description="Entropy log(uniform_support) counts as no confidence.")
    ] = 16
    scope: Annotated[Literal["batch", "sequence", "token"], Field(description="What shares one gamma.")] = "batch"
    entropy_cap: Annotated[bool, Field(description="Cap the entropy of each token at log(uniform_support).")] = False


class FeatureMSEParams(LossParams):
    """Mean squared difference of hidden states at the layers a selector picks."""

    target: ClassVar[str] = "edgerazor.plugins.losses.features:FeatureMSE"
    name: Literal["feature_mse"] = "feature_mse"
    layers: SelectorSlot
    reduction: Reduction = "sequence_mean"
