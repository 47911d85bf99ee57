"""llama.cpp itself: its decoders find codes times scale, its tokenizer the same tokens, its model the same logits."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf_cases import (
    BODIES,
    CASES,
    PROFILES,
    WIDE,
    Packed,
    byte_level_tokenizer,
    expected_rows,
    make,
    pack_case,
    rules,
    sentencepiece_tokenizer,
    stored_heads,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from test_gguf_blocks import PAIRS, matrices
from torch.nn import functional
from transformers import AutoTokenizer

from edgerazor.checkpoint import load_model, open_checkpoint
from edgerazor.core.registry import Registry
from edgerazor.plugins.exporters.gguf.architectures import tensor_name
from edgerazor.plugins.exporters.gguf.blocks import BLOCK_TYPES
from edgerazor.plugins.exporters.gguf.ggml import dequantizer
from edgerazor.plugins.exporters.gguf.read import open_gguf

llama_cpp = pytest.importorskip("llama_cpp")
pytestmark = pytest.mark.llamacpp
TEXTS = [
    "The quick brown fox, the 12 lazy dogs.",
    "def load(self, path):\n    return path.read_text()\n\n\n# end",
    "  two spaces, a tab\tand a line\r\nwith carriage return \n",
    "1234567890 3.14159 1,000,000 12ab34",
    "it's we'll they'RE don't I'D 's",
    "Grüße aus Köln; naïve café",
    "Привет, мир! 你好，世界 こんにちは",
    "emoji 😀👍🏽 and symbols ∑∫≠ ©",
    "!!!???...---===***((()))[[]]{}<>",
    " leading and trailing ",
    "inside<tool>out<|end|>after",
    "x",
    "\n\n\n",
    "aAbB_cC-dD/eE\\fF",
]


@contextmanager
def opened(path: Path, **options: Any) -> Iterator[Any]:
    """The file as llama.cpp loads it."""
    model = llama_cpp.Llama(
        str(path), **{"n_ctx": 128, "n_threads": 1, "n_threads_batch": 1, "verbose": False, **options}
    )
    try:
        yield model
    finally:
        model.close()


@pytest.mark.parametrize(("name", "group_size"), PAIRS)
@settings(max_examples=8)
@given(data=st.data())
def test_libggml_decodes_codes_times_scale(name: str, group_size: int, data: st.DataObject) -> None:
    library = dequantizer(name)
    assert library is not None, f"libggml has no decoder for {name}"
    codes, scale = data.draw(matrices(BLOCK_TYPES[name], group_size))
    expected = codes.astype(np.float32) * np.repeat(scale.astype(np.float32), group_size, axis=1)
    assert np.array_equal(library(BLOCK_TYPES[name].pack(codes, scale), codes.shape[1]), expected)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("case", CASES)
def test_libggml_finds_the_weights_of_the_checkpoint(
    case: str, profile: str, registry: Registry, packed: Packed, tmp_path: Path
) -> None:
    checkpoint = packed(case)
    make(registry, tmp_path / "a.gguf", profile=profile).export(checkpoint, tmp_path / "a.gguf")
    file, compared = open_gguf(tmp_path / "a.gguf"), 0
    for name in checkpoint.names():
        stored = file.tensors[str(tensor_name(checkpoint.role(name), checkpoint.facts.gguf))]
        library = dequantizer(stored.decoder.name)
        if library is None:
            assert stored.decoder.name in ("F32", "F16", "BF16")
            continue
        values = library(file.raw(stored), stored.shape[1])
        assert int((values != expected_rows(checkpoint, name, stored_heads(case, name)).numpy()).sum()) == 0, name
        compared += 1
    assert compared == len(checkpoint.section.modules)


@pytest.mark.parametrize("kind", ["gpt-2", "qwen2", "sentencepiece"])
def test_llama_cpp_finds_the_same_tokens(kind: str, registry: Registry, tmp_path: Path) -> None:
    tokenizer = sentencepiece_tokenizer() if kind == "sentencepiece" else byte_level_tokenizer(qwen=kind == "qwen2")
    folder = pack_case(tmp_path, registry, tokenizer=tokenizer, num_hidden_layers=1)
    make(registry, tmp_path / "a.gguf").export(open_checkpoint(folder), tmp_path / "a.gguf")
    reference = AutoTokenizer.from_pretrained(folder)
    with opened(tmp_path / "a.gguf", vocab_only=True) as model:
        for text in TEXTS:
            assert model.tokenize(text.encode(), add_bos=True, special=True) == reference(text)["input_ids"], text


LOGITS = {
    "qwen3 4-bit": {"weights": rules(BODIES["4"], 32)},
    "qwen3 1.58-bit": {"weights": rules(BODIES["1.58"], 256), "tie_word_embeddings": False},
    "llama 1.58-bit": {"family": "llama", "weights": rules(BODIES["1.58"], 64), "tie_word_embeddings": False},
    "llama 1.88-bit, biases": {"family": "llama", "weights": rules(BODIES["1.88"], 32), "attention_bias": True},
    "llama 8-bit": {"family": "llama", "weights": rules(BODIES["8"], 64)},
    "mobilellm 4-bit": {"family": "mobilellm", "weights": rules(BODIES["4"], 64), "share_embedding": True},
    "mistral 4-bit": {"family": "mistral", "weights": rules(BODIES["4"], 64), "sliding_window": None},
    "qwen2 1.58-bit": {"family": "qwen2", "weights": rules(BODIES["1.58"], 256), **WIDE},
}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("case", LOGITS)
def test_logits(case: str, profile: str, registry: Registry, tmp_path: Path) -> None:
    """What is left is llama.cpp's int8 activations; a wrong order of anything gives errors of order 1."""
    folder = pack_case(tmp_path, registry, **LOGITS[case])  # type: ignore[arg-type]
    make(registry, tmp_path / "a.gguf", profile=profile).export(open_checkpoint(folder), tmp_path / "a.gguf")
    tokens = torch.randint(0, 256, (64,), generator=torch.Generator().manual_seed(1)).tolist()
    with torch.no_grad():
        ours = load_model(folder, dtype=torch.float32)(input_ids=torch.tensor([tokens])).logits[0].double()
    with opened(tmp_path / "a.gguf", logits_all=True) as model:
        model.eval(tokens)
        theirs = torch.from_numpy(np.array(model.scores[: len(tokens)])).double()
    assert theirs.shape == ours.shape
    assert float((theirs - ours).norm() / ours.norm()) < 6e-2
    divergence = functional.kl_div(theirs.log_softmax(-1), ours.log_softmax(-1), reduction="batchmean", log_target=True)
    assert 0 <= float(divergence) < 5e-3


def test_llama_cpp_writes_text(registry: Registry, packed: Packed, tmp_path: Path) -> None:
    checkpoint = packed("qwen3 1.58-bit g256 tied")
    make(registry, tmp_path / "a.gguf", profile="size").export(checkpoint, tmp_path / "a.gguf")
    with opened(tmp_path / "a.gguf") as model:
        answer = model.create_completion("the fox", max_tokens=8, temperature=0.0)
    assert answer["usage"]["completion_tokens"] > 0 and isinstance(answer["choices"][0]["text"], str)
