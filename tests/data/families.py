"""Chat templates of ten families, typed as their documentation shows them, and what each writes for a turn.

`turn(message, last)` is the answer as a model of the family writes it, behind the header that a prompt ends with;
`last` says that no question follows.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Message = dict[str, Any]


@dataclass(frozen=True)
class Family:
    """A template with its special tokens, and what it takes.

    Attributes:
        file: its template, in `templates`.
        turn: what it writes for an answer.
        special: special tokens; the first ends a sequence, `bos` begins one.
        calls: how many calls a turn may have.
        system: it takes a system message.
        behind_all: what the template writes behind the last turn, learned with it.
    """

    file: str
    turn: Callable[[Message, bool], str]
    special: tuple[str, ...]
    bos: str | None = None
    calls: int = 0
    system: bool = True
    behind_all: str = ""

    @property
    def template(self) -> str:
        """Jinja text."""
        return (Path(__file__).parent / "templates" / f"{self.file}.jinja").read_text(encoding="utf-8")


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _functions(message: Message) -> list[dict[str, Any]]:
    return [call["function"] for call in message.get("tool_calls", [])]


def _chatml_turn(message: Message, last: bool) -> str:
    return f"{message['content']}<|im_end|>"


def _qwen25_turn(message: Message, last: bool) -> str:
    calls = [
        f'<tool_call>\n{{"name": "{f["name"]}", "arguments": {_dump(f["arguments"])}}}\n</tool_call>'
        for f in _functions(message)
    ]
    said = [message["content"]] if message["content"] or not calls else []
    return "\n".join([*said, *calls]) + "<|im_end|>"


def _qwen3_turn(message: Message, last: bool) -> str:
    """The thought is kept where no question follows; an empty one belongs to the prompt."""
    thought, content = message.get("reasoning_content", "").strip("\n"), message["content"]
    shown = content.lstrip("\n") if last and (thought or not message.get("tool_calls")) else content
    turn = _qwen25_turn({**message, "content": shown}, last)
    # Between an answer that was nothing but line breaks and its calls, one is left.
    turn = "\n" + turn if message.get("tool_calls") and content and not shown else turn
    return f"<think>\n{thought}\n</think>\n\n{turn}" if last and thought else turn


def _llama31_turn(message: Message, last: bool) -> str:
    for function in _functions(message):
        end = "<|eom_id|>" if function["name"] == "python" else "<|eot_id|>"
        return f'{{"name": "{function["name"]}", "parameters": {_dump(function["arguments"])}}}{end}'
    return f"{message['content'].strip()}<|eot_id|>"


def _mistral_turn(message: Message, last: bool) -> str:
    if not message.get("tool_calls"):
        return f" {message['content'].strip()}</s>"
    calls = [
        f'{{"name": "{f["name"]}", "arguments": {_dump(f["arguments"])}, "id": "{call["id"]}"}}'
        for call, f in zip(message["tool_calls"], _functions(message), strict=True)
    ]
    return f"[TOOL_CALLS] [{', '.join(calls)}]</s>"


def _granite_turn(message: Message, last: bool) -> str:
    calls = f"<|tool_call|>{_dump(_functions(message))}" if message.get("tool_calls") else ""
    return f"{message['content']}{calls}<|end_of_text|>"


_IM = ("<|im_end|>", "<|im_start|>", "<|endoftext|>")
_LLAMA = ("<|eot_id|>", "<|eom_id|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>")
FAMILIES = {
    "ChatML": Family("chatml", _chatml_turn, _IM),
    "SmolLM2": Family("smollm2", _chatml_turn, _IM),
    "Qwen2.5": Family("qwen2.5", _qwen25_turn, _IM, calls=2),
    "Qwen3": Family("qwen3", _qwen3_turn, _IM, calls=2),
    "Llama 3.1": Family("llama3.1", _llama31_turn, _LLAMA, bos="<|begin_of_text|>", calls=1),
    "Mistral": Family(
        "mistral",
        _mistral_turn,
        ("</s>", "<s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
        bos="<s>",
        calls=2,
    ),
    "Gemma": Family(
        "gemma",
        lambda message, last: f"{message['content'].strip()}<end_of_turn>",
        ("<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
        bos="<bos>",
        system=False,
    ),
    "Phi": Family(
        "phi",
        lambda message, last: f"{message['content']}<|end|>",
        ("<|endoftext|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"),
        behind_all="\n<|endoftext|>",
    ),
    "OLMo 2": Family(
        "olmo2", lambda message, last: f"{message['content']}<|endoftext|>", ("<|endoftext|>",), bos="<|endoftext|>"
    ),
    "Granite": Family(
        "granite",
        _granite_turn,
        ("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>", "<|tool_call|>"),
        calls=2,
    ),
}
