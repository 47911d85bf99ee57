"""One message as it stands in a file, checked and brought to the form that chat templates read."""

import json
from collections.abc import Container, Mapping
from typing import Any

from edgerazor.errors import DataError
from edgerazor.schemas.base import nearest

ROLES = ("system", "developer", "user", "assistant", "tool")
SWITCHES = ("weight", "train", "training", "loss")
"""Keys of a message or a row that say whether it is learned."""
UNKNOWN_SWITCHES = ("weights", "loss_weight", "sample_weight", "mask", "loss_mask", "train_mask", "trainable")
"""Names that are used for the same elsewhere; read past, they would change what is learned."""
_SPEAKERS = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "observation": "tool",
    "function": "tool",
    "function_response": "tool",
}
_REASONING = ("reasoning_content", "thinking", "reasoning")
_KEYS = ("role", "content", "name", "tool_calls", "tool_call_id", "function_call", *_REASONING, *SWITCHES)

Message = dict[str, Any]


def check_message(message: Any, where: str, *, known: Container[str] = (), ignore: Container[str] = ()) -> Message:
    """The message with `role`, `content` (text) and the keys that hold anything; switches keep their place.

    ShareGPT's `from` and `value` become `role` and `content`, text parts one text, arguments written as JSON objects,
    and a thought stands under both names that templates read, `reasoning_content` and `thinking`.

    Args:
        message: what the file holds.
        where: place, for the message of an error.
        known: further keys that are understood.
        ignore: keys that mean nothing.

    Raises:
        DataError: it is no message, or a key, a role, a content or a call is not understood.
    """
    if not isinstance(message, Mapping):
        raise DataError(f"{where}: is {type(message).__name__}; expected keys 'role' and 'content'")
    found = _named({key: value for key, value in message.items() if key not in ignore}, where)
    present = {key: value for key, value in found.items() if value is not None and value not in ([], {})}
    if "role" not in present:
        raise DataError(f"{where}: has no 'role' (keys: {_listed(present)}); expected 'role' and 'content'")
    role = present["role"]
    if not isinstance(role, str) or role not in ROLES:
        raise DataError(f"{where}: no role '{role}'{nearest(str(role), ROLES)}")
    for key in present:
        if key not in _KEYS and key not in known:
            raise DataError(
                f"{where}: the key '{key}' is not understood{nearest(key, _KEYS)}; if it means nothing for training, "
                "list it under `ignore` of the source"
            )
    if calls := _calls(present, where):
        present["tool_calls"] = calls
    present["content"] = _text(present, where)
    thought = next((present[key] for key in _REASONING if key in present), None)
    return present if thought is None else {"thinking": thought, **present, "reasoning_content": thought}


def is_learned(holder: Mapping[str, Any], where: str) -> bool:
    """What the switches of a message or a row say; True without any.

    Raises:
        DataError: one is neither on nor off, or has a name that is not understood.
    """
    for key in UNKNOWN_SWITCHES:
        if holder.get(key) is not None:
            raise DataError(
                f"{where}: the key '{key}' is not understood; expected one of {', '.join(SWITCHES)}, or list it under "
                "`ignore` of the source"
            )
    return all(_switch(key, holder[key], where) for key in SWITCHES if holder.get(key) is not None)


def parse_json(value: Any) -> Any:
    """The value that a text in JSON stands for; anything else as it is."""
    if isinstance(value, str) and value.strip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _switch(key: str, value: Any, where: str) -> bool:
    names = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
    said = names.get(str(value).strip().lower())
    if said is None:
        raise DataError(
            f"{where}: '{key}' is {value!r}; a turn is learned (1, true) or not (0, false). If it means something "
            "else, list it under `ignore` of the source"
        )
    return said


def _named(message: dict[str, Any], where: str) -> dict[str, Any]:
    """With the names of keys and roles that templates read."""
    if "from" in message and "role" not in message:
        speaker, content = message.pop("from"), message.pop("value", None)
        if speaker == "function_call":
            return {**message, "role": "assistant", "content": "", "tool_calls": _called(content, where)}
        return {**message, "role": _SPEAKERS.get(str(speaker), speaker), "content": content}
    if message.get("role") == "function":
        message["role"] = "tool"
    return message


def _called(content: Any, where: str) -> list[Any]:
    call = parse_json(content)
    calls = call if isinstance(call, list) else [call]
    if not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
        raise DataError(f"{where}: a function_call is JSON with 'name' and 'arguments'; found {str(content)[:60]!r}")
    return calls


def _calls(message: Message, where: str) -> list[Any]:
    """The calls of a message, each `{"type": "function", "function": {"name", "arguments"}, ...}`."""
    calls = parse_json(message.pop("tool_calls", []))
    legacy = message.pop("function_call", None)
    if legacy is not None and isinstance(calls, list):
        calls = [*calls, parse_json(legacy)]
    if not isinstance(calls, list) or not all(isinstance(call, Mapping) for call in calls):
        raise DataError(f"{where}: 'tool_calls' holds {kind_of(calls)}; expected a list of calls")
    return [_call(dict(call), f"{where}: call {number}") for number, call in enumerate(calls, start=1)]


def _call(call: dict[str, Any], where: str) -> dict[str, Any]:
    function = call.pop("function", None)
    if not isinstance(function, Mapping):
        function = {key: call.pop(key) for key in ("name", "arguments") if key in call}
    if not isinstance(function.get("name"), str):
        raise DataError(f"{where}: names no function; expected keys 'name' and 'arguments'")
    arguments = parse_json(function.get("arguments"))
    return {"type": "function", **call, "function": {**function, "arguments": {} if arguments is None else arguments}}


def _text(message: Message, where: str) -> str:
    content = message.get("content")
    if content is None and message["role"] == "assistant" and message.get("tool_calls"):
        return ""
    if content is None:
        raise DataError(f"{where}: has no 'content' (keys: {_listed(message)}); expected 'role' and 'content'")
    if isinstance(content, list):
        return "".join(_part(part, where) for part in content)
    if not isinstance(content, str):
        raise DataError(f"{where}: 'content' is {kind_of(content)}; expected text")
    return content


def _part(part: Any, where: str) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type", "text") if isinstance(part, Mapping) else kind_of(part)
    if kind != "text" or not isinstance(part.get("text"), str):
        raise DataError(f"{where}: 'content' has a part of type '{kind}'; expected text parts alone")
    return str(part["text"])


def _listed(keys: Mapping[str, Any]) -> str:
    return ", ".join(f"'{key}'" for key in keys) or "none"


def kind_of(value: Any) -> str:
    """What a value is, in words for people: `nothing`, `text`, or the name of its type."""
    return "nothing" if value is None else "text" if isinstance(value, str) else type(value).__name__
