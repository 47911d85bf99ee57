"""`generate`: a packed checkpoint writes text, as quantized as it was trained, or an exported model in its engine."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgerazor.core.contracts import Runtime
from edgerazor.core.discovery import load_plugins
from edgerazor.core.registry import Registry
from edgerazor.errors import EdgeRazorError
from edgerazor.inference.open_runtime import open_runtime

_INCOMPLETE = "\ufffd"


@dataclass(frozen=True)
class GenerationSettings:
    """How text is written.

    Attributes:
        max_new_tokens: at most this many.
        temperature: 0 takes the likeliest token each time.
        seed: of the sampling.
        chat: True wraps the prompt as a user's message by the chat template; None does so if there is a template.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    seed: int = 0
    chat: bool | None = None


DEFAULTS = GenerationSettings()


def generate(
    path: str | Path,
    prompt: str,
    settings: GenerationSettings = DEFAULTS,
    *,
    on_text: Callable[[str], None] | None = None,
    registry: Registry | None = None,
) -> str:
    """Load a packed checkpoint or an exported model, and continue `prompt`; arguments as for `generate_text`.

    Raises:
        EdgeRazorError: see `open_runtime` and `generate_text`.
    """
    runtime = open_runtime(path, registry=registry or load_plugins())
    try:
        return generate_text(runtime, prompt, settings, on_text=on_text)
    finally:
        runtime.close()


def generate_text(
    runtime: Runtime,
    prompt: str,
    settings: GenerationSettings = DEFAULTS,
    *,
    on_text: Callable[[str], None] | None = None,
) -> str:
    """Continue `prompt` until a token that ends a text, the length asked for, or the end of the context.

    Args:
        runtime: a loaded model; it is restarted.
        prompt: what the model continues, or the user's message.
        settings: length, sampling, and whether the prompt is a message.
        on_text: called with each piece of text as soon as its characters are whole.

    Returns:
        The new text.

    Raises:
        EdgeRazorError: the prompt has no tokens or does not fit the context, or there is no chat template where
            `settings.chat` asks for one.
    """
    runtime.restart()
    pending, new, shown = runtime.encode(prompt, chat=settings.chat), list[int](), 0
    if not pending:
        raise EdgeRazorError("the prompt has no tokens; write at least one word")
    generator = np.random.default_rng(settings.seed)
    room = runtime.context_length - len(pending)
    text = ""
    while len(new) < settings.max_new_tokens:
        token = _choose(runtime.feed(pending)[0], settings.temperature, generator)
        if token in runtime.stop_ids:
            break
        new.append(token)
        text = runtime.decode(new)
        if on_text is not None and not text.endswith(_INCOMPLETE):
            on_text(text[shown:])
            shown = len(text)
        if len(new) > room:
            break
        pending = [token]
    if on_text is not None and text[shown:]:
        on_text(text[shown:])
    return text


def _choose(logits: NDArray[np.float32], temperature: float, generator: np.random.Generator) -> int:
    """The likeliest token, or one drawn at that temperature."""
    if temperature <= 0:
        return int(logits.argmax())
    scaled = logits.astype(np.float64) / temperature
    weights = np.exp(scaled - scaled.max())
    return int(generator.choice(len(weights), p=weights / weights.sum()))
