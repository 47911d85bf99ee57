"""Parameters of the built-in selectors (METHOD 4.5)."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from edgerazor.schemas.base import problem
from edgerazor.schemas.components import SelectorParams


class LAFDParams(SelectorParams):
    """The layers at which the teacher changes its representation most."""

    target: ClassVar[str] = "edgerazor.plugins.selectors.lafd:LAFD"
    name: Literal["lafd"] = "lafd"
    top_k: Annotated[int, Field(ge=1)] = 3
    metric: Annotated[
        Literal["cosine", "norm", "variance"],
        Field(description="cosine: least like the layer below; norm, variance: largest."),
    ] = "cosine"
    refresh: Annotated[
        Literal["step", "calibration"],
        Field(description="step: chosen anew in every forward pass; calibration: once, before the first step."),
    ] = "step"
    calibration_batches: Annotated[int | None, Field(ge=1, description="With refresh: calibration; null: 8.")] = None

    @model_validator(mode="after")
    def _batches_belong_to_calibration(self) -> "LAFDParams":
        if self.calibration_batches is not None and self.refresh != "calibration":
            raise problem("calibration_batches is given, but refresh is 'step'; set refresh: calibration")
        return self


class FixedParams(SelectorParams):
    """Layers by index: 0 is the embedding output, 1 to L the decoder layers, negative ones count from the end."""

    target: ClassVar[str] = "edgerazor.plugins.selectors.fixed:Fixed"
    name: Literal["fixed"] = "fixed"
    layers: Annotated[tuple[int | Literal["low", "mid", "high"], ...], Field(min_length=1)]


class AllParams(SelectorParams):
    """Every decoder layer, 1 to L."""

    target: ClassVar[str] = "edgerazor.plugins.selectors.fixed:All"
    name: Literal["all"] = "all"
