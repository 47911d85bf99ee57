"""What determines the text that a teacher writes; how fast it is written is not part of it."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, ValidationError, model_serializer, model_validator

from edgerazor.errors import RecipeError
from edgerazor.schemas.base import Schema, nearest, problem

DEFAULT_MAX_NEW_TOKENS, DEFAULT_TEMPERATURE, DEFAULT_TOP_P, DEFAULT_TOP_K = 1024, 0.7, 0.95, 20


SCRIPTS = {
    "arabic": ("ARABIC",),
    "armenian": ("ARMENIAN",),
    "bengali": ("BENGALI",),
    "cyrillic": ("CYRILLIC",),
    "devanagari": ("DEVANAGARI",),
    "georgian": ("GEORGIAN",),
    "greek": ("GREEK",),
    "han": ("CJK",),
    "hangul": ("HANGUL",),
    "hebrew": ("HEBREW",),
    "japanese": ("CJK", "HIRAGANA", "KATAKANA"),
    "latin": ("LATIN",),
    "tamil": ("TAMIL",),
    "thai": ("THAI",),
}
"""Scripts by name, each with how the Unicode names of its letters begin."""


class SelfPrompting(Schema):
    """How dialogues are made without any data: the teacher writes the user's turns, and filters choose."""

    title: ClassVar[str] = "self_prompted"

    turns: Annotated[int, Field(ge=1, description="Questions of a dialogue, each with its answer.")] = 1
    question_tokens: Annotated[int, Field(ge=1, description="Of one question at most.")] = 128
    question_temperature: Annotated[float, Field(ge=0, le=100, description="0: always the same question.")] = 1.0
    min_question: Annotated[int, Field(ge=1, description="Characters of a question.")] = 8
    max_question: Annotated[int, Field(ge=1)] = 2000
    min_answer: Annotated[int, Field(ge=1, description="Characters of an answer.")] = 2
    max_answer: Annotated[int, Field(ge=1)] = 20000
    max_repetition: Annotated[
        float, Field(ge=0, le=1, description="Share of the four-word sequences of a text that occurred in it before.")
    ] = 0.2
    max_similarity: Annotated[
        float, Field(gt=0, le=1, description="Jaccard similarity of the user's words to those of an accepted row.")
    ] = 0.7
    script: Annotated[str | None, Field(description="Of at least 95 % of the letters; None: any.")] = None
    model_digest: Annotated[str | None, Field(description="XXH3 of the model's files; None: it is on a hub.")] = None

    @model_validator(mode="after")
    def _check(self) -> "SelfPrompting":
        if self.script is not None and self.script not in SCRIPTS:
            raise problem(f"no script '{self.script}'{nearest(self.script, SCRIPTS)}")
        for what in ("question", "answer"):
            if getattr(self, f"min_{what}") > getattr(self, f"max_{what}"):
                raise problem(f"min_{what} is above max_{what}")
        return self


class SynthesisSettings(Schema):
    """Teacher and sampling (METHOD 7). Equal settings and an equal prompt give an equal row id.

    They are stored in every row, so a file says how it was made, and rows of two kinds cannot get into one file.
    """

    title: ClassVar[str] = "synthesis"

    writer: Annotated[Literal["local", "server"], Field(description="Transformers here, or an OpenAI-compatible API.")]
    model: Annotated[str, Field(min_length=1, description="Folder or hub name; of a server: the name it serves.")]
    max_new_tokens: Annotated[int, Field(ge=1, description="Of one answer.")] = DEFAULT_MAX_NEW_TOKENS
    temperature: Annotated[float, Field(ge=0, le=100, description="0: the likeliest token.")] = DEFAULT_TEMPERATURE
    top_p: Annotated[float, Field(gt=0, le=1)] = DEFAULT_TOP_P
    top_k: Annotated[int, Field(ge=0, description="0: all tokens.")] = DEFAULT_TOP_K
    seed: Annotated[int, Field(ge=0)] = 0
    system_prompt: Annotated[str | None, Field(description="For dialogues without a system message.")] = None
    standard_only: Annotated[
        bool, Field(description="Send a server only what OpenAI's own API knows: no top_k, no switch for thinking.")
    ] = False
    self_prompted: Annotated[
        SelfPrompting | None, Field(description="Without data; None: a source has the questions.")
    ] = None

    @model_serializer(mode="wrap")
    def _serialize(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without the section that is not there: the rows and ids of files without it stay as they were."""
        values: dict[str, Any] = handler(self)
        if values.get("self_prompted") is None:
            values.pop("self_prompted", None)
        return values


def build_synthesis_settings(**values: Any) -> SynthesisSettings:
    """The settings, checked.

    Raises:
        RecipeError: one line per value that is unknown or out of range.
    """
    try:
        return SynthesisSettings.model_validate(values)
    except ValidationError as error:
        raise RecipeError(
            [f"{'.'.join(map(str, line['loc'])) or 'settings'}: {line['msg']}" for line in error.errors()]
        ) from error
