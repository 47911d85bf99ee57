"""Where a user's turn begins and ends in what a chat template writes: the template is asked, not read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from edgerazor.data.messages import Message
from edgerazor.data.template import ChatTemplate
from edgerazor.errors import SynthesisError

_MARKERS = ("Xqzv7wander", "Jkw3 pelmont?")


@dataclass(frozen=True)
class UserTurn:
    """What the template writes around a user's message.

    Attributes:
        before: all that comes before its words, the earlier messages included.
        after: what closes it, up to where the answer begins.
    """

    before: str
    after: str


def find_user_turn(template: ChatTemplate, messages: Sequence[Message], name: str, **more: Any) -> UserTurn:
    """Render two different messages of a user behind `messages`, and compare.

    Args:
        template: of the model.
        messages: that come before.
        name: of the model, for errors.
        more: variables of the template.

    Raises:
        SynthesisError: there is no template, it refuses a user's message here, does not show it, shows it more than
            once or otherwise than it is, or writes something else around other words.
    """
    if not template:
        raise SynthesisError(f"{name}: has no chat template, so nothing says where a user's turn begins")
    found = set()
    for marker in _MARKERS:
        try:
            text = template.render([*messages, {"role": "user", "content": marker}], None, prompt=True, **more)
        except (TemplateError, TypeError) as error:
            raise SynthesisError(f"{name}: the chat template refuses a user's message here: {error}") from error
        parts = text.split(marker)
        if len(parts) != 2:
            how = "does not show a user's words as they are" if len(parts) == 1 else "repeats a user's words"
            raise SynthesisError(f"{name}: the chat template {how}, so no turn of a user can be opened by it")
        found.add(tuple(parts))
    if len(found) > 1:
        raise SynthesisError(
            f"{name}: what the chat template writes around a user's words depends on them, so no turn can be opened"
        )
    before, after = found.pop()
    return UserTurn(before, after)
