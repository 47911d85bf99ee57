"""A stand-in for the model of examples/smollm2: its architecture and the splits of its tokenizer, at a tiny size."""

import json
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.sizes import TINY

TEMPLATE = Path(__file__).parents[1] / "data" / "templates" / "smollm2.jinja"
MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LINES = [f"What is {index} plus 2? It is {index + 2}, as anyone's cat number {index % 7} knows." for index in range(60)]


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with a token for every digit, as SmolLM2's was published."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = [AddedToken(mark, special=True, normalized=False) for mark in MARKS]
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(LINES, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=MARKS[1], eos_token=MARKS[2], unk_token=MARKS[0], pad_token=MARKS[2]
    )
    fast.chat_template = TEMPLATE.read_text(encoding="utf-8")
    return fast


def save_model(folder: Path) -> Path:
    """A random Llama with three layers, tied, as a 16-bit folder."""
    words = tokenizer()
    config = LlamaConfig(
        **{**TINY, "num_hidden_layers": 3},
        vocab_size=len(words),
        max_position_embeddings=256,
        initializer_range=0.2,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def save_dialogues(path: Path) -> Path:
    """A question and an answer a line."""
    rows = [line.split("? ") for line in LINES]
    dialogues = (
        [{"role": "user", "content": f"{question}?"}, {"role": "assistant", "content": answer}]
        for question, answer in rows
    )
    path.write_text("".join(json.dumps({"messages": turns}) + "\n" for turns in dialogues), encoding="utf-8")
    return path


def save_items(path: Path, lines: list[str] | None = None) -> Path:
    """Multiple choice, or the lines given."""
    item = {"question": "What is 1 plus 2?", "choices": ["3", "four cats"], "label": 0}
    path.write_text("\n".join(lines if lines is not None else [json.dumps(item)] * 5) + "\n", encoding="utf-8")
    return path
