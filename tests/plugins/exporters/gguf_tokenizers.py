"""Small tokenizers with the normalizers and pre-tokenizers that families publish, trained on texts that part them."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, processors, trainers
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from edgerazor.plugins.exporters.probe_texts import probe_texts

SIZE = 900
SPACE = "\u2581"
# Steps as families publish them in tokenizer.json, and the name that llama.cpp has for them.
_PUBLISHED: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "published_tokenizers.json").read_text(encoding="utf-8")
)
SENTENCEPIECE = [name for name, steps in _PUBLISHED.items() if steps["pre"] == "default"]
TEKKEN = "Mistral Nemo"  # which llama.cpp splits differently
BYTE_LEVEL = {name: str(steps["pre"]) for name, steps in _PUBLISHED.items() if name not in (*SENTENCEPIECE, TEKKEN)}


def byte_level(name: str) -> PreTrainedTokenizerFast:
    """A trained tokenizer with a family's steps, a beginning, two ends of a text and an ordinary added token."""
    steps = _PUBLISHED[name]
    written = json.loads(_trained(json.dumps(steps["normalizer"]), json.dumps(steps["pre_tokenizer"])))
    written["model"]["ignore_merges"] = steps["ignore_merges"]
    tokenizer = Tokenizer.from_str(json.dumps(written))
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False)])
    return _finished(tokenizer, bos_token="<|begin|>", eos_token="<|im_end|>", extra=["<|im_start|>", "<|stop|>"])


@cache
def _trained(normalizer: str, pre_tokenizer: str) -> str:
    tokenizer = Tokenizer(models.BPE())
    written = json.loads(tokenizer.to_str())
    tokenizer = Tokenizer.from_str(
        json.dumps({**written, "normalizer": json.loads(normalizer), "pre_tokenizer": json.loads(pre_tokenizer)})
    )
    trainer: Any = trainers.BpeTrainer
    tokenizer.train_from_iterator(
        list(probe_texts()) * 2,
        trainer(vocab_size=SIZE, initial_alphabet=ByteLevel.alphabet(), show_progress=False, max_token_length=24),
    )
    return tokenizer.to_str()


def sentencepiece(name: str) -> PreTrainedTokenizerFast:
    """Merges trained on words with their space in front, completed as converters of sentencepiece complete them."""
    steps = {key: _PUBLISHED[name][key] for key in ("normalizer", "pre_tokenizer")}
    letters, made = _trained_words()
    vocabulary = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters, *made]
    known = set(letters) | set(made)
    merges = [
        (token[:index], token[index:])
        for token in made
        for index in range(1, len(token))
        if token[:index] in known and token[index:] in known
    ]
    numbers = {token: number for number, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.BPE(numbers, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    written = json.loads(tokenizer.to_str())
    tokenizer = Tokenizer.from_str(json.dumps({**written, **steps}))
    tokenizer.decoder = decoders.Sequence(  # type: ignore[assignment]
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return _finished(tokenizer, bos_token="<bos>", eos_token="<eos>", extra=["<start_of_turn>", "<end_of_turn>"])


@cache
def _trained_words() -> tuple[list[str], list[str]]:
    tokenizer = Tokenizer(models.BPE())
    replaced = [text.replace(" ", SPACE).replace("\0", "") for text in probe_texts()]
    trainer: Any = trainers.BpeTrainer
    tokenizer.train_from_iterator(replaced * 2, trainer(vocab_size=SIZE, show_progress=False, max_token_length=12))
    vocabulary = tokenizer.get_vocab()
    ordered = sorted(vocabulary, key=lambda token: vocabulary[token])
    return [token for token in ordered if len(token) == 1], [token for token in ordered if len(token) > 1]


def _finished(tokenizer: Tokenizer, *, bos_token: str, eos_token: str, extra: list[str]) -> PreTrainedTokenizerFast:
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in (bos_token, eos_token, *extra)])
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single=f"{bos_token} $A", special_tokens=[(bos_token, int(tokenizer.token_to_id(bos_token)))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos_token, eos_token=eos_token)
