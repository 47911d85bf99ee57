"""What a dialogue must look like, checked row by row."""

from typing import Any

from edgerazor.errors import DataError
from edgerazor.schemas.base import nearest

ROLES = ("system", "developer", "user", "assistant", "tool")
Message = dict[str, Any]


def check_dialogue(value: Any, where: str) -> list[Message]:
    """Return the messages of a row, each with at least `role` and `content`; keys without a value are left out.

    Args:
        value: what the file holds.
        where: file and row, for the message.

    Raises:
        DataError: see `check_messages`; or no turn is the assistant's.
    """
    messages = check_messages(value, where)
    if not any(message["role"] == "assistant" for message in messages):
        raise DataError(f"{where}: no message is the assistant's, so there is nothing to learn from")
    return messages


def check_messages(value: Any, where: str) -> list[Message]:
    """Return the messages of a row as `check_dialogue` does; the assistant's turns may still be missing.

    Raises:
        DataError: it is no list of messages, a role is unknown, or a content is no text.
    """
    if not isinstance(value, list) or not value:
        kind = "an empty list" if value == [] else "nothing" if value is None else type(value).__name__
        raise DataError(f"{where}: holds {kind}; expected a list of messages")
    return [_check_message(message, f"{where}: message {number}") for number, message in enumerate(value, start=1)]


def with_system_prompt(messages: list[Message], prompt: str | None) -> list[Message]:
    """Put the prompt in front, unless the dialogue has a system message of its own."""
    if prompt is None or any(message["role"] == "system" for message in messages):
        return messages
    return [{"role": "system", "content": prompt}, *messages]


def _check_message(message: Any, where: str) -> Message:
    if not isinstance(message, dict):
        raise DataError(f"{where}: is {type(message).__name__}; expected keys 'role' and 'content'")
    present = {key: value for key, value in message.items() if value is not None}
    for key in ("role", "content"):
        if key not in present:
            others = ", ".join(f"'{name}'" for name in present) or "none"
            raise DataError(f"{where}: has no '{key}' (keys: {others}); expected 'role' and 'content'")
        if not isinstance(present[key], str):
            raise DataError(f"{where}: '{key}' is {type(present[key]).__name__}; expected text")
    if present["role"] not in ROLES:
        raise DataError(f"{where}: no role '{present['role']}'{nearest(present['role'], ROLES)}")
    return present
