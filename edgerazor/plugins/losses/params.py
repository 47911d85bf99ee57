"""Parameters of the built-in losses (METHOD 4)."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from edgerazor.schemas.components import LossParams, Reduction, SelectorSlot

Scope = Annotated[Literal["batch", "sequence", "token"], Field(description="What shares one gamma.")]
UniformSupport = Annotated[float, Field(ge=2, description="Entropy log(uniform_support) counts as no confidence.")]
LayerMap = Annotated[
    Literal["same", "proportional"] | dict[int, int],
    Field(
        description="Which student layer meets a teacher layer: the same one, the one at the same share of the depth, "
        "or {teacher layer: student layer}."
    ),
]


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


class JSDParams(DivergenceParams):
    """Jensen-Shannon divergence: both are compared with beta * teacher + (1 - beta) * student."""

    target: ClassVar[str] = "edgerazor.plugins.losses.jsd:JSD"
    name: Literal["jsd"] = "jsd"
    beta: Annotated[float, Field(gt=0, lt=1, description="Share of the teacher in the mixture.")] = 0.5


class EAKLDParams(DivergenceParams):
    """Forward and reverse KL balanced by gamma, the confidence of the teacher."""

    target: ClassVar[str] = "edgerazor.plugins.losses.eakld:EAKLD"
    name: Literal["eakld"] = "eakld"
    uniform_support: UniformSupport = 16
    scope: Scope = "batch"
    entropy_cap: Annotated[bool, Field(description="Cap the entropy of each token at log(uniform_support).")] = False


class CAKLDParams(DivergenceParams):
    """Forward and reverse KL balanced by gamma, the probability that the teacher gives to the labels."""

    target: ClassVar[str] = "edgerazor.plugins.losses.eakld:CAKLD"
    name: Literal["cakld"] = "cakld"
    scope: Scope = "batch"


class LayerwiseParams(LossParams):
    """What all losses between layers share; `layers` picks them by their number in the teacher."""

    layers: SelectorSlot
    layer_map: LayerMap = "same"
    reduction: Reduction = "sequence_mean"


class FeatureParams(LayerwiseParams):
    """What all losses between hidden states share."""

    projection: Annotated[
        Literal["linear"] | None,
        Field(description="linear: a matrix that is trained along takes the student's states to the teacher's width."),
    ] = None


class FeatureMSEParams(FeatureParams):
    """Mean squared difference of hidden states at the layers a selector picks."""

    target: ClassVar[str] = "edgerazor.plugins.losses.features:FeatureMSE"
    name: Literal["feature_mse"] = "feature_mse"
    relative: Annotated[
        bool, Field(description="Divided by the mean square of the teacher's state: one weight suits every model.")
    ] = False


class FeatureCosineParams(FeatureParams):
    """1 - cosine of hidden states at the layers a selector picks: directions count, lengths do not."""

    target: ClassVar[str] = "edgerazor.plugins.losses.features:FeatureCosine"
    name: Literal["feature_cosine"] = "feature_cosine"


class RelationParams(LayerwiseParams):
    """What all losses between rows of probabilities share."""

    divergence: Literal["forward_kl", "reverse_kl", "eakld"] = "forward_kl"
    uniform_support: UniformSupport = 16
    scope: Scope = "batch"


class AttentionRelationParams(RelationParams):
    """Divergence of attention probabilities; the models then run with eager attention."""

    target: ClassVar[str] = "edgerazor.plugins.losses.relations:AttentionRelation"
    name: Literal["attention_relation"] = "attention_relation"


class KeyValueRelationParams(RelationParams):
    """Divergence of how alike the keys, or the values, of all pairs of positions are."""

    target: ClassVar[str] = "edgerazor.plugins.losses.relations:KeyValueRelation"
    name: Literal["key_value_relation"] = "key_value_relation"
    component: Literal["value", "key", "both"] = "value"


class RouterZParams(LossParams):
    """Mean squared logsumexp of the router's logits in a mixture of experts; it keeps them small."""

    target: ClassVar[str] = "edgerazor.plugins.losses.router_z:RouterZ"
    name: Literal["router_z"] = "router_z"
    weight: Annotated[float, Field(ge=0)] = 0.001
