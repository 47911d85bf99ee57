"""A server for the tests of a file."""

from collections.abc import Callable, Iterator

import pytest
from torch import nn

pytest.importorskip("uvicorn", reason="needs the extra serve")

from edgerazor.models.transformers_runtime import TransformersRuntime
from tests.runs import tokenizer
from tests.serve.serving import TEMPLATE, Address, Parrot, serving


@pytest.fixture(scope="module")
def server(build_model: Callable[..., nn.Module]) -> Iterator[Address]:
    """A parrot, and a random Qwen3 in Transformers."""
    words = tokenizer()
    words.chat_template = TEMPLATE
    tiny = TransformersRuntime(build_model(seed=1, vocab_size=320, max_position_embeddings=256), words)
    with serving(Parrot(), tiny, names=("parrot", "tiny"), max_new_tokens=200, max_body_bytes=1 << 20) as address:
        yield address
