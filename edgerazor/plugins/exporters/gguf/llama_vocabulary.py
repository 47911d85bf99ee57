"""llama.cpp's tokenizer of a GGUF without tensors, through the C interface of llama-cpp-python."""

import ctypes
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import llama_cpp

from edgerazor.errors import ExportError
from edgerazor.plugins.exporters.gguf.header import write_header


class LlamaVocabulary:
    """Tokens as llama.cpp finds them.

    Args:
        path: of a GGUF file; its tensors are not read.

    Raises:
        ExportError: llama.cpp cannot load it.
    """

    def __init__(self, path: Path):
        llama_cpp.llama_backend_init()
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = True
        self._model: Any = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise ExportError(f"{path}: llama.cpp cannot load its tokenizer")
        self._vocabulary = llama_cpp.llama_model_get_vocab(self._model)

    def encode(self, text: str) -> list[int]:
        """Token ids, special tokens inside and around the text included."""
        written = text.encode()
        room = len(written) + 8
        ids = (ctypes.c_int32 * room)()
        count = llama_cpp.llama_tokenize(self._vocabulary, written, len(written), ids, room, True, True)
        return list(ids[:count])

    def stop_ids(self) -> set[int]:
        """Tokens that llama.cpp's own programs take for the end of a text."""
        count = llama_cpp.llama_vocab_n_tokens(self._vocabulary)
        return {index for index in range(count) if llama_cpp.llama_vocab_is_eog(self._vocabulary, index)}

    def close(self) -> None:
        """Free the vocabulary."""
        llama_cpp.llama_model_free(self._model)


@contextmanager
def open_vocabulary(keys: Mapping[str, Any]) -> Iterator[LlamaVocabulary]:
    """The tokenizer that these keys describe; what llama.cpp logs is not shown.

    Raises:
        ExportError: llama.cpp cannot load it.
    """
    logger = logging.getLogger("llama-cpp-python")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "vocabulary.gguf"
            write_header(path, "llama", keys)
            vocabulary = LlamaVocabulary(path)
            try:
                yield vocabulary
            finally:
                vocabulary.close()
    finally:
        logger.setLevel(level)
