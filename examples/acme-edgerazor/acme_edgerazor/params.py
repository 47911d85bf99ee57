"""The declarations: name, parameters, and where the code lives, which is imported when a recipe uses it."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from edgerazor import AdapterParams, ExporterParams, LossParams, QuantizerParams, SelectorParams


class FP4Params(QuantizerParams):
    """The eight magnitudes of the 4-bit float e2m1 and their negatives, times a scale per group."""

    target: ClassVar[str] = "acme_edgerazor.fp4:FP4"
    name: Literal["acme.fp4"] = "acme.fp4"
    scale_dtype: Literal["float16", "float32"] = "float16"


class TotalVariationParams(LossParams):
    """Half the summed difference of the probabilities of student and teacher: between 0 and 1."""

    target: ClassVar[str] = "acme_edgerazor.total_variation:TotalVariation"
    name: Literal["acme.total_variation"] = "acme.total_variation"
    temperature: Annotated[float, Field(gt=0)] = 1.0
    reduction: Literal["sequence_mean", "token_mean"] = "sequence_mean"


class EveryNthParams(SelectorParams):
    """Every nth decoder layer, counted back from the last one."""

    target: ClassVar[str] = "acme_edgerazor.every_nth:EveryNth"
    name: Literal["acme.every_nth"] = "acme.every_nth"
    n: Annotated[int, Field(ge=1)] = 2


class Exaone4Params(AdapterParams):
    """EXAONE 4."""

    target: ClassVar[str] = "acme_edgerazor.exaone4:Exaone4Adapter"
    model_types: ClassVar[tuple[str, ...]] = ("exaone4",)
    name: Literal["acme.exaone4"] = "acme.exaone4"


class NPZParams(ExporterParams):
    """One .npz file that numpy opens: codes, scales and widths of every matrix, the rest at 16 bit."""

    target: ClassVar[str] = "acme_edgerazor.npz:NPZ"
    suffixes: ClassVar[tuple[str, ...]] = (".npz",)
    suits: ClassVar[str] = "anything with numpy"
    name: Literal["acme.npz"] = "acme.npz"
