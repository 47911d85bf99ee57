"""The keys of `data` that belong to pictures: columns and augmentation."""

from typing import Annotated, ClassVar

from pydantic import Field

from edgerazor.schemas.base import Schema


class ImagesSection(Schema):
    """Which columns hold pictures and labels, and what is changed about a picture at random before it is learned from.

    What is drawn follows from `data.seed`, the picture and the epoch alone.
    """

    title: ClassVar[str] = "data.images"

    image: Annotated[str, Field(description="Column of the pictures, in tables.")] = "image"
    label: Annotated[str, Field(description="Column of the classes, in tables; it may be absent.")] = "label"
    crop: Annotated[
        float | None, Field(gt=0, le=1, description="Smallest share of the area that a random crop keeps; null: none.")
    ] = None
    flip: Annotated[bool, Field(description="Half of the pictures are mirrored, left to right.")] = False
    mixup: Annotated[
        float | None,
        Field(gt=0, description="Mixes each picture with another one; both parameters of the beta distribution."),
    ] = None
