"""A small byte-level BPE tokenizer, and files to read."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEXT = [
    "The quick brown fox jumps over the lazy dog. How many dogs? Three dogs, four foxes and one answer.",
    "user assistant system question answer yes no think hello world naïve café 你好世界 🙂 🙃",
]

# As the templates of Qwen3: thoughts of earlier turns are dropped, the last turn always opens with a thought.
THINKING_TEMPLATE = """
{%- set last = namespace(user=-1) -%}
{%- for m in messages %}{% if m.role == 'user' %}{% set last.user = loop.index0 %}{% endif %}{% endfor -%}
{%- for m in messages -%}
  {%- set words, thought = m.content, '' -%}
  {%- if m.role == 'assistant' and '</think>' in m.content -%}
    {%- set words = m.content.split('</think>')[-1].lstrip('\n') -%}
    {%- set thought = m.content.split('</think>')[0].split('<think>')[-1].strip('\n') -%}
  {%- elif m.reasoning_content is string -%}
    {%- set thought = m.reasoning_content.strip('\n') -%}
  {%- endif -%}
  {{- '<|im_start|>' + m.role + '\n' -}}
  {%- if m.role == 'assistant' and loop.index0 > last.user -%}
    {{- '<think>\n' + thought + '\n</think>\n\n' + words.lstrip('\n') -}}
  {%- else -%}
    {{- words -}}
  {%- endif -%}
  {{- '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|im_start|>assistant\n' -}}
  {%- if enable_thinking is defined and not enable_thinking %}{{- '<think>\n\n</think>\n\n' -}}{% endif -%}
{%- endif -%}
"""


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., PreTrainedTokenizerFast]:
    """`make_tokenizer(chat_template=..., eos_token=...)`: byte-level BPE, 400 entries, no token added by itself."""

    def make(chat_template: str | None = None, eos_token: str | None = SPECIAL[0]) -> PreTrainedTokenizerFast:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
        tokenizer.train_from_iterator(TEXT * 4, trainer)
        tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
        fast = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, eos_token=eos_token, pad_token=SPECIAL[0], clean_up_tokenization_spaces=False
        )
        fast.chat_template = chat_template
        return fast

    return make


@pytest.fixture(scope="session")
def tokenizer(make_tokenizer: Callable[..., PreTrainedTokenizerFast]) -> PreTrainedTokenizerFast:
    """Without a chat template."""
    return make_tokenizer()


@pytest.fixture(scope="session")
def thinking_tokenizer(make_tokenizer: Callable[..., PreTrainedTokenizerFast]) -> PreTrainedTokenizerFast:
    """With a template that treats the last turn in another way than those before; `<|im_end|>` ends a sequence."""
    return make_tokenizer(THINKING_TEMPLATE, "<|im_end|>")


@pytest.fixture
def write_lines(tmp_path: Path) -> Callable[..., str]:
    """`write_lines(rows, name)`: a JSON lines file and its path."""

    def write(rows: Iterable[Any], name: str = "data.jsonl") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return write
