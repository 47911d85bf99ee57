"""A row as a dialogue: its messages, the tools it may call, and which turns are learned."""

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgerazor.data.messages import SWITCHES, Message, check_message, is_learned, kind_of, parse_json
from edgerazor.errors import DataError


@dataclass(frozen=True)
class Dialogue:
    """What a chat template gets.

    Attributes:
        messages: each with `role` and `content`, and other keys that hold anything.
        learned: for each message whether it is a turn of the assistant that is learned.
        tools: descriptions of functions; None: none.
    """

    messages: tuple[Message, ...]
    learned: tuple[bool, ...]
    tools: tuple[dict[str, Any], ...] | None = None

    @property
    def turns(self) -> tuple[int, ...]:
        """Indices of the messages that are learned."""
        return tuple(index for index, learned in enumerate(self.learned) if learned)

    def with_system_prompt(self, prompt: str | None) -> "Dialogue":
        """With the prompt in front, unless there is a system message."""
        if prompt is None or any(message["role"] == "system" for message in self.messages):
            return self
        system = {"role": "system", "content": prompt}
        return replace(self, messages=(system, *self.messages), learned=(False, *self.learned))


def read_dialogue(
    row: Mapping[str, Any],
    field: str,
    where: str,
    *,
    response: str | None = None,
    ignore: Container[str] = (),
    known: Container[str] = (),
) -> Dialogue:
    """The dialogue of a row; an assistant's turn may be missing.

    Args:
        row: its columns: `field`, and those beside it that are understood.
        field: column of the messages (a list, or JSON), or of the prompt if there is a `response`.
        where: file and row, for messages of errors.
        response: column of the answer to the prompt.
        ignore: columns and keys of messages that mean nothing.
        known: keys of messages that are understood besides the usual ones.

    Raises:
        DataError: a value is not as expected; place, message and key are named.
    """
    row = {key: value for key, value in row.items() if key not in ignore}
    place = f"{where}, column '{field}'"
    value = parse_json(row.get(field)) if response is None else _exchange(row, field, response, where)
    if not isinstance(value, list) or not value:
        kind = "an empty list" if value == [] else "nothing" if value is None else kind_of(value)
        raise DataError(f"{place}: holds {kind}; expected a list of messages")
    whole_row = is_learned(row, where)
    messages, learned = [], []
    for number, item in enumerate(value, start=1):
        said = f"{place}: message {number}"
        message = check_message(item, said, known=known, ignore=ignore)
        on = is_learned(message, said)
        learned.append(whole_row and on and message["role"] == "assistant")
        messages.append({key: held for key, held in message.items() if key not in SWITCHES})
    dialogue = Dialogue(tuple(messages), tuple(learned), _tools(row.get("tools"), where))
    system = row.get("system") or None
    if system is not None and not isinstance(system, str):
        raise DataError(f"{where}, column 'system': holds {kind_of(system)}; expected text")
    return dialogue.with_system_prompt(system)


def check_answered(dialogue: Dialogue, where: str) -> Dialogue:
    """The dialogue itself.

    Raises:
        DataError: no turn is the assistant's.
    """
    if not any(message["role"] == "assistant" for message in dialogue.messages):
        raise DataError(f"{where}: no message is the assistant's, so there is nothing to learn from")
    return dialogue


def _exchange(row: Mapping[str, Any], prompt: str, response: str, where: str) -> list[Any]:
    """A prompt and its answer as messages; either may be a list of messages. Text is text, also where it is JSON."""
    exchange: list[Any] = []
    for column, role in ((prompt, "user"), (response, "assistant")):
        value = row.get(column)
        if isinstance(value, list):
            exchange += value
        elif isinstance(value, str):
            exchange.append({"role": role, "content": value})
        else:
            raise DataError(f"{where}, column '{column}': holds {kind_of(value)}; expected text or messages")
    return exchange


def _tools(value: Any, where: str) -> tuple[dict[str, Any], ...] | None:
    tools = parse_json(value)
    if tools is None or tools in ("", []):
        return None
    tools = [parse_json(tool) for tool in tools] if isinstance(tools, list) else tools
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise DataError(
            f"{where}, column 'tools': holds {kind_of(tools)}; expected a list of functions, or one as JSON"
        )
    return tuple(tools)
