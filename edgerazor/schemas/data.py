"""The `data` section: sources, mixing, sequence length."""

import datetime
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from edgerazor.schemas.base import Schema, problem
from edgerazor.schemas.images import ImagesSection


class Source(Schema):
    """One file (JSON lines, JSON, CSV, Parquet or plain text) or folder of such files; the path is taken literally.

    Of pictures: a Parquet file, a dataset saved with `datasets`, or a folder with a folder of pictures for each class.
    """

    title: ClassVar[str] = "source"

    path: str
    format: Annotated[Literal["messages", "text"] | None, Field(description="null: found by the content.")] = None
    field: Annotated[
        str | None, Field(description="Column that holds the messages or the text; null: 'messages' or 'text'.")
    ] = None
    response: Annotated[
        str | None, Field(description="Column of the answers to the prompts in `field`, where they are apart.")
    ] = None
    ignore: Annotated[
        tuple[str, ...], Field(description="Columns, and keys of messages, that mean nothing for training.")
    ] = ()
    ratio: Annotated[
        float | None, Field(gt=0, le=1, description="Share of the documents of an epoch; for all sources or for none.")
    ] = None
    split: Annotated[
        str | None, Field(description="Of a folder: a dataset saved with `datasets`, or files named as on the hub.")
    ] = None

    @model_validator(mode="after")
    def _check_response(self) -> "Source":
        if self.response is not None and self.field is None:
            raise problem("has a column of answers (`response`); name the one of prompts with `field`")
        return self


# Keys that are read of texts alone.
_OF_TEXTS = ("sequence_length", "packing", "system_prompt", "chat_template_kwargs", "date")
Paths = str | tuple[str, ...]


def _sources(items: Sequence[Any]) -> list[Any]:
    """A bare path stands for a source without options."""
    return [{"path": item} if isinstance(item, str) else item for item in items]


class DataSection(Schema):
    """What is trained on and what is held out."""

    title: ClassVar[str] = "data"

    task: Annotated[
        Literal["language_modeling", "image_classification"],
        Field(description="What is predicted: the next token of texts, or the class of pictures."),
    ] = "language_modeling"
    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    sequence_length: Annotated[int, Field(ge=8)] = 1024
    packing: Annotated[
        bool,
        Field(description="true: documents share a row, attention and positions restart; false: one a row, padded."),
    ] = True
    held_out: Annotated[
        float | tuple[Source, ...] | None,
        Field(description="A share of the documents, or sources of their own; null: none."),
    ] = None
    seed: int = 0
    system_prompt: str | None = None
    chat_template_kwargs: Annotated[
        dict[str, Any],
        Field(default_factory=dict, description="Variables of the chat template, such as enable_thinking."),
    ]
    date: Annotated[
        datetime.date | None,
        Field(description="What a chat template that asks for the date is told; null: the day a run begins."),
    ] = None

    images: ImagesSection = ImagesSection()
    on_bad_row: Annotated[
        Literal["refuse", "skip"],
        Field(description="Rows that cannot be used: an error that counts them all, or left out and counted."),
    ] = "refuse"

    @field_validator("chat_template_kwargs")
    @classmethod
    def _free_names(cls, value: dict[str, Any]) -> dict[str, Any]:
        taken = {"messages", "tools", "add_generation_prompt", "self"} & value.keys()
        if taken:
            raise problem(f"{', '.join(sorted(taken))}: is set for each dialogue; expected other variables")
        return value

    @field_validator("sources", mode="before", json_schema_input_type=Paths | Source | tuple[Source, ...])
    @classmethod
    def _single_path(cls, value: Any) -> Any:
        items = value if isinstance(value, (list, tuple)) else [value]
        return _sources(items)

    @field_validator("held_out", mode="before", json_schema_input_type=float | Paths | tuple[Source, ...] | None)
    @classmethod
    def _held_out_paths(cls, value: Any) -> Any:
        if isinstance(value, (str, list, tuple)):
            return _sources([value] if isinstance(value, str) else value)
        return value

    @model_validator(mode="after")
    def _only_what_the_task_reads(self) -> "DataSection":
        foreign = ("images",) if self.task == "language_modeling" else _OF_TEXTS
        defaults = {name: type(self).model_fields[name].get_default(call_default_factory=True) for name in foreign}
        if changed := [name for name, default in defaults.items() if getattr(self, name) != default]:
            raise problem(f"{', '.join(changed)}: means nothing for task {self.task}; leave it out")
        return self

    @model_serializer(mode="wrap")
    def _keys_of_the_task(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = write(self)
        unread = ("task", "images") if self.task == "language_modeling" else _OF_TEXTS
        return {key: value for key, value in content.items() if key not in unread}

    @model_validator(mode="after")
    def _check_shares(self) -> "DataSection":
        ratios = [source.ratio for source in self.sources]
        if any(ratio is not None for ratio in ratios):
            if any(ratio is None for ratio in ratios):
                raise problem("some sources have a ratio and some have none; give it to all or to none")
            total = sum(ratio for ratio in ratios if ratio is not None)
            if abs(total - 1.0) > 1e-6:
                raise problem(f"the ratios of the sources add up to {total:g}; expected 1")
        if isinstance(self.held_out, float) and not 0.0 < self.held_out < 1.0:
            raise problem(f"held_out is {self.held_out:g}; expected a share between 0 and 1, or a list of sources")
        if isinstance(self.held_out, tuple):
            self._check_held_out(self.held_out)
        return self

    def _check_held_out(self, sources: tuple[Source, ...]) -> None:
        if not sources:
            raise problem("held_out is an empty list; expected sources, a share between 0 and 1, or null")
        training = {(source.path, source.split) for source in self.sources}
        for source in sources:
            if (source.path, source.split) in training:
                raise problem(f"'{source.path}' is trained on and held out; expected different sources, or a share")
            if source.ratio is not None:
                raise problem(f"held-out source '{source.path}' has a ratio; it is read whole, so expected none")
