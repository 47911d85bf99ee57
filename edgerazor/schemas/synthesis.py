"""What determines the text that a teacher writes; how fast it is written is not part of it."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError

from edgerazor.errors import RecipeError
from edgerazor.schemas.base import Schema

DEFAULT_MAX_NEW_TOKENS, DEFAULT_TEMPERATURE, DEFAULT_TOP_P, DEFAULT_TOP_K = 1024, 0.7, 0.95, 20


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
