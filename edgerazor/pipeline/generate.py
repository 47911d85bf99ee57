"""`generate`: a packed checkpoint writes text, as quantized as it was trained."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.generation.streamers import TextStreamer

from edgerazor.errors import CheckpointError
from edgerazor.pipeline.checkpoint import load_model


@dataclass(frozen=True)
class GenerationSettings:
    """How text is written.

    Attributes:
        max_new_tokens: at most this many.
        temperature: 0 takes the likeliest token each time.
        seed: of the sampling; the caller's random state is left as it was.
        chat: True wraps the prompt as a user's message by the chat template; None does so if there is a template.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    seed: int = 0
    chat: bool | None = None


DEFAULTS = GenerationSettings()


def generate(
    folder: str | Path,
    prompt: str,
    settings: GenerationSettings = DEFAULTS,
    *,
    on_text: Callable[[str], None] | None = None,
) -> str:
    """Load a packed checkpoint and its tokenizer, and continue `prompt`; arguments as for `generate_text`.

    Raises:
        CheckpointError: the checkpoint is damaged or has no tokenizer; see also `generate_text`.
    """
    tokenizer = _load_tokenizer(folder)
    model = load_model(folder)
    return generate_text(model, tokenizer, prompt, settings, on_text=on_text)


def generate_text(
    model: Any,
    tokenizer: Any,
    prompt: str,
    settings: GenerationSettings = DEFAULTS,
    *,
    on_text: Callable[[str], None] | None = None,
) -> str:
    """Continue `prompt` and return the new text.

    Args:
        model: a causal language model that can generate.
        tokenizer: its tokenizer.
        prompt: what the model continues, or the user's message.
        settings: length, sampling, and whether the prompt is a message.
        on_text: called with each piece of text as soon as it is whole.

    Raises:
        CheckpointError: there is no chat template where `settings.chat` asks for one, or the prompt has no tokens.
    """
    model.eval()
    input_ids = _encode(tokenizer, prompt, settings.chat).to(model.device)
    streamer = _Stream(tokenizer, on_text or (lambda text: None))
    sampling: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    if settings.temperature > 0:
        sampling = {"do_sample": True, "temperature": settings.temperature}
    pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(settings.seed)
        model.generate(
            input_ids=input_ids,
            attention_mask=torch.ones_like(input_ids),
            max_new_tokens=settings.max_new_tokens,
            pad_token_id=pad_token_id,
            streamer=streamer,
            **sampling,
        )
    return "".join(streamer.pieces)


class _Stream(TextStreamer):
    """Hands over text when its words are whole, and keeps it."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, on_text: Callable[[str], None]):
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.on_text, self.pieces = on_text, list[str]()

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.pieces.append(text)
        self.on_text(text)


def _load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    if not Path(folder).is_dir():
        raise CheckpointError(f"{folder}: there is no such folder; expected a packed checkpoint")
    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder}: no usable tokenizer: {str(error).splitlines()[0]}") from error


def _encode(tokenizer: Any, prompt: str, chat: bool | None) -> torch.Tensor:
    """Token ids `[1, length]`."""
    if chat and not tokenizer.chat_template:
        raise CheckpointError("the tokenizer has no chat template; leave --chat out")
    if chat or (chat is None and tokenizer.chat_template):
        messages = [{"role": "user", "content": prompt}]
        prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    else:
        ids = tokenizer(prompt)["input_ids"]
    if not ids:
        raise CheckpointError("the prompt has no tokens; write at least one word")
    return torch.tensor([ids], dtype=torch.long)
