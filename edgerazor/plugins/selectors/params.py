"""Parameters of the built-in selectors (METHOD 4.5)."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from edgerazor.schemas.components import SelectorParams


class LAFDParams(SelectorParams):
    """The layers at which the teacher changes its representation most."""

    target: ClassVar[str] = "edgerazor.plugins.selectors.lafd:LAFD"
    name: Literal["lafd"] = "lafd"
    top_k: Annotated[int, Field(ge=1)] = 3


class FixedParams(SelectorParams):
    """Layers by index: 0 is the embedding output, 1 to L the decoder layers, negative ones count from the end."""

    target: ClassVar[str] = "edgerazor.plugins.selectors.fixed:Fixed"
    name: Literal["fixed"] = "fixed"
    layers: Annotated[tuple[int | Literal["low", "mid", "high"], ...], Field(min_length=1)]
