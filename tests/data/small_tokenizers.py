"""Small tokenizers of the three kinds that models have, with the special tokens of a family."""

import json
from collections.abc import Callable, Sequence
from functools import cache

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TEXT = [
    "The quick brown fox jumps over the lazy dog. How many dogs? Three dogs, four foxes and one answer.",
    "user assistant system model tool name arguments parameters question answer yes no think hello world",
    "def f(x):\n    return x\n\n\n    if x:\n\t\treturn 1\n\n  yes\n   no\n\n\n\nhello\n \n world 2024 \n\n",
    "naïve café 你好世界 🙂",
]
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_level() -> Tokenizer:
    """As GPT-2 and its followers split text."""
    return _trained_bytes(Tokenizer(models.BPE()), trim_offsets=True)


def ignoring_merges() -> Tokenizer:
    """As Llama 3: words that are in the vocabulary need no merges."""
    trained = _trained_bytes(Tokenizer(models.BPE()), trim_offsets=False)
    vocabulary = trained.get_vocab(with_added_tokens=False)
    for word in ("Ġanswer", "Ċassistant", "hello", "ĠĠĠĠ"):
        vocabulary.setdefault(word, len(vocabulary))
    again = Tokenizer(models.BPE(vocab=vocabulary, merges=_merges(trained), ignore_merges=True))
    again.pre_tokenizer, again.decoder = trained.pre_tokenizer, trained.decoder
    return again


def metaspace() -> Tokenizer:
    """As sentencepiece: blanks are letters, nothing is split before, bytes stand for what is not in the vocabulary."""
    trained = Tokenizer(models.BPE())
    spaces = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="never", split=False)
    trained.pre_tokenizer = spaces
    trainer = trainers.BpeTrainer(vocab_size=300, show_progress=False, limit_alphabet=60)
    trained.train_from_iterator([line + "\n" for text in TEXT[:3] for line in (text, *text.split("\n"))] * 4, trainer)
    vocabulary = trained.get_vocab(with_added_tokens=False)
    for byte in range(256):
        vocabulary.setdefault(f"<0x{byte:02X}>", len(vocabulary))
    again = Tokenizer(models.BPE(vocab=vocabulary, merges=_merges(trained), byte_fallback=True, fuse_unk=True))
    again.pre_tokenizer = spaces
    again.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return again


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "byte-level": byte_level,
    "sentencepiece": metaspace,
    "ignore_merges": ignoring_merges,
}


@cache
def build(kind: str, special: tuple[str, ...], bos: str | None, template: str) -> PreTrainedTokenizerFast:
    """A tokenizer; the first special token ends a sequence."""
    tokenizer = KINDS[kind]()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=special[0], bos_token=bos, clean_up_tokenization_spaces=False
    )
    fast.chat_template = template
    return fast


def learned_runs(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int], labels: Sequence[int]) -> list[str]:
    """The text of each unbroken run of labels, as it stands behind what comes before."""
    runs, begin = [], None
    for index, label in enumerate([*labels, -100]):
        if label != -100 and begin is None:
            begin = index
        elif label == -100 and begin is not None:
            runs.append(tokenizer.decode(ids[:index])[len(tokenizer.decode(ids[:begin])) :])
            begin = None
    return runs


def _trained_bytes(tokenizer: Tokenizer, *, trim_offsets: bool) -> Tokenizer:
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False, trim_offsets=trim_offsets),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXT * 4, trainer)
    return tokenizer


def _merges(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in merges]
