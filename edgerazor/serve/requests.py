"""Requests, read strictly where they are understood; keys that are not understood are ignored, as clients expect."""

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from edgerazor.serve.errors import ApiError

Text = Annotated[str, Field(max_length=1000, min_length=1)]
Tokens = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class StreamOptions(BaseModel):
    """What a stream has besides its text."""

    model_config = ConfigDict(strict=True)
    include_usage: bool | None = None


class GenerationRequest(BaseModel):
    """What both endpoints take.

    Attributes:
        model: name; None takes the only one there is.
    """

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    model: str | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = 1.0
    top_p: Annotated[float, Field(ge=0, le=1)] | None = 1.0
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = 0.0
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = 0.0
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Text | Annotated[list[Text], Field(max_length=16)] | None = None
    n: Literal[1] | None = 1
    user: Any = None

    @property
    def stops(self) -> list[str]:
        """Texts that end the answer."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with the number of tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatRequest(GenerationRequest):
    """Body of /v1/chat/completions; messages are checked by `edgerazor.serve.messages`."""

    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=0)] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    chat_template_kwargs: dict[str, Any] | None = None
    logprobs: Literal[False] | None = False
    response_format: Any = None

    @field_validator("tool_choice")
    @classmethod
    def _is_free(cls, choice: Any) -> Any:
        if choice not in (None, "auto", "none"):
            raise ValueError("expected 'auto' or 'none': a call cannot be forced")
        return choice

    @field_validator("response_format")
    @classmethod
    def _is_text(cls, form: Any) -> Any:
        if form is not None and form != {"type": "text"}:
            raise ValueError("expected {'type': 'text'}: no other form can be forced")
        return form

    @field_validator("tools")
    @classmethod
    def _are_functions(cls, tools: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
        for tool in tools or []:
            function = tool.get("function")
            if tool.get("type") != "function" or not isinstance(function, dict):
                raise ValueError("expected {'type': 'function', 'function': {'name', ...}}")
            if not isinstance(function.get("name"), str):
                raise ValueError("a function has no name")
        return tools

    @property
    def asked_tokens(self) -> int | None:
        """Length of the answer, at most."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


class CompletionRequest(GenerationRequest):
    """Body of /v1/completions: one text, or several that are continued one after the other; tokens instead of text."""

    prompt: str | Tokens | Annotated[list[str | Tokens], Field(min_length=1, max_length=128)]
    echo: bool | None = False
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @property
    def asked_tokens(self) -> int:
        """Length of each continuation, at most."""
        return 16 if self.max_tokens is None else self.max_tokens

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each of the texts."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [self.prompt]  # type: ignore[list-item]
        return list(self.prompt)  # type: ignore[arg-type]


Parsed = TypeVar("Parsed", bound=GenerationRequest)


def parse(body: bytes, kind: type[Parsed]) -> Parsed:
    """The request that a body holds.

    Raises:
        ApiError: it is no JSON object, holds text that is no Unicode, or a key has a value of another form.
    """
    try:
        content = json.loads(body)
        if b"\\u" in body:
            json.dumps(content, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from error
    if not isinstance(content, dict):
        raise ApiError(400, f"the body is {type(content).__name__}; expected a JSON object", code="invalid_json")
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        param = str(first["loc"][0]) if first["loc"] else None
        raise ApiError(400, f"{place}: {first['msg']}", param=param, code="invalid_value") from error
