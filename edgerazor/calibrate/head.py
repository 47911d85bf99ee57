"""The output head as a matrix to calibrate, tied to the embedding or not."""

from dataclasses import dataclass
from typing import Any

from edgerazor.core.contracts import Quantizer
from edgerazor.core.plan import Plan


@dataclass(frozen=True)
class Head:
    """The layer that makes logits of the last states.

    Attributes:
        layer: the module.
        owner: name of the module that owns its weight, the embedding where both are tied.
        parameter_name: of that weight.
        quantizer: of that weight.
        tied: that weight is the embedding's.
    """

    layer: Any
    owner: str
    parameter_name: str
    quantizer: Quantizer
    tied: bool

    @classmethod
    def of(cls, model: Any, plan: Plan) -> "Head | None":
        """The output head of a model with the plan applied; None where it has none, or leaves it at 16 bit."""
        layer = model.get_output_embeddings()
        named = {entry.name: entry for entry in plan.modules if entry.params}
        for entry in named.values():
            if entry.kind == "linear" and model.get_submodule(entry.name) is layer:
                owner = named[entry.tied_to or entry.name]
                tied = entry.tied_to is not None
                return cls(layer, owner.name, owner.parameter_name, layer.weight_quantizer, tied)
        return None
