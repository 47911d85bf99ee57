"""From a request to the tokens of its prompt."""

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError

from edgerazor.data.messages import Message, check_message
from edgerazor.errors import DataError
from edgerazor.serve.answers import THOUGHT
from edgerazor.serve.errors import ApiError
from edgerazor.serve.models import ServedModel
from edgerazor.serve.requests import ChatRequest

_KEYS = ("role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content")


def render_chat(model: ServedModel, request: ChatRequest) -> tuple[list[int], bool]:
    """Tokens of a dialogue up to where the answer begins, and whether it begins inside a thought.

    Raises:
        ApiError: the model has no chat template, or a message or the dialogue is not one that it takes.
    """
    if not model.template:
        raise ApiError(
            400, f"'{model.name}' has no chat template; use /v1/completions", param="messages", code="no_chat_template"
        )
    messages = [_message(message, index) for index, message in enumerate(request.messages)]
    tools = request.tools if request.tool_choice != "none" else None
    more = {key: value for key, value in (request.chat_template_kwargs or {}).items() if key not in _OURS}
    try:
        text = model.template.render(messages, tools, prompt=True, **more)
    except (
        TemplateError,
        TypeError,
        ValueError,
        ArithmeticError,
        LookupError,
        AttributeError,
        RecursionError,
    ) as error:
        message = f"the chat template refuses this dialogue: {error}"
        raise ApiError(422, message, param="messages", code="template_error") from error
    return model.runtime.encode_rendered(text), text.rstrip().endswith(THOUGHT)


_OURS = frozenset({"messages", "tools", "add_generation_prompt", "prompt", "self"})


def encode_prompt(model: ServedModel, prompt: str | Sequence[int]) -> tuple[list[int], str]:
    """Tokens and text of what /v1/completions is to continue.

    Raises:
        ApiError: the model has no such token.
    """
    if isinstance(prompt, str):
        return model.runtime.encode_text(prompt), prompt
    vocabulary = model.runtime.vocabulary_size
    if max(prompt) >= vocabulary:
        raise ApiError(400, f"prompt: there is no token {max(prompt)}; the vocabulary has {vocabulary}", param="prompt")
    return list(prompt), model.runtime.decode(prompt)


def check_length(model: ServedModel, ids: Sequence[int], limit: int | None, param: str) -> None:
    """Raise ApiError unless the tokens are at least one, and fit the context and the limit of the server."""
    most = min(model.runtime.context_length, limit or model.runtime.context_length)
    if not ids:
        raise ApiError(400, f"{param}: has no tokens; write at least one word", param=param)
    if len(ids) > most:
        message = f"{param}: has {len(ids)} tokens; '{model.name}' takes at most {most}"
        raise ApiError(400, message, param=param, code="context_length_exceeded")


def _message(message: Mapping[str, Any], index: int) -> Message:
    known = {key: message[key] for key in _KEYS if key in message}
    if known.get("role") == "assistant" and known.get("content") is None:
        known["content"] = ""
    try:
        return check_message(known, f"messages[{index}]")
    except DataError as error:
        raise ApiError(400, str(error), param="messages") from error
