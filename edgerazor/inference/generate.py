"""`generate`: a packed checkpoint writes text, as quantized as it was trained, or an exported model in its engine."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgerazor.core.contracts import Runtime
from edgerazor.core.discovery import load_plugins
from edgerazor.core.registry import Registry
from edgerazor.errors import EdgeRazorError
from edgerazor.inference.continuation import Continuation, TextStream
from edgerazor.inference.open_runtime import open_runtime
from edgerazor.inference.sampling import Sampling


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
    ids = runtime.encode(prompt, chat=settings.chat)
    if not ids:
        raise EdgeRazorError("the prompt has no tokens; write at least one word")
    most = min(settings.max_new_tokens, runtime.context_length - len(ids) + 1)  # the last one is not fed
    sampling = Sampling(settings.temperature, settings.seed)
    pieces, stream = list[str](), TextStream(runtime.decode)

    def show(piece: str) -> None:
        pieces.append(piece)
        if on_text is not None and piece:
            on_text(piece)

    for token in Continuation(runtime.feed, ids, sampling, stop_ids=runtime.stop_ids, most=max(most, 1)):
        show(stream.add(token))
    show(stream.finish())
    return "".join(pieces)
