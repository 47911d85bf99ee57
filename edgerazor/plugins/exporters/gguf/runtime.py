"""A GGUF file in llama.cpp, through llama-cpp-python."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgerazor.core.contracts import Runtime, Sequences
from edgerazor.errors import ExportError, install_hint
from edgerazor.plugins.exporters.common import VERSION, read_recipe
from edgerazor.plugins.exporters.gguf.read import read_metadata
from edgerazor.plugins.exporters.gguf.special_tokens import EOS, STOP_IDS, TEMPLATE

try:
    import llama_cpp
except ModuleNotFoundError as error:
    if error.name != "llama_cpp":
        raise
    raise ImportError(f"llama-cpp-python is not installed: {install_hint('llamacpp')}") from error

from edgerazor.plugins.exporters.gguf.amx import require_working_amx
from edgerazor.plugins.exporters.gguf.pieces import Pieces
from edgerazor.plugins.exporters.gguf.sequences import LlamaCppSequences

CacheType = Literal["F32", "F16", "Q8_0"]
_CACHE_IDS: dict[CacheType, int] = {"F32": 0, "F16": 1, "Q8_0": 8}
_BATCH = 512
_MOST_CONTEXT = 4096


class LlamaCppRuntime(Runtime):
    """Any causal language model that llama.cpp loads.

    Args:
        path: of the file.
        context_length: tokens of the cache; None is the model's own, at most 4096.
        threads: None lets llama.cpp choose.
        cache_type: of keys and values.

    Raises:
        ExportError: llama.cpp cannot load the file.
        PluginError: llama.cpp was compiled in a way that ends the process.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        context_length: int | None = None,
        threads: int | None = None,
        cache_type: CacheType = "F16",
    ):
        self.path, self.name = Path(path), str(path)
        self.engine = f"llama.cpp (llama-cpp-python {llama_cpp.__version__})"
        metadata = read_metadata(self.path)
        length = context_length or min(_trained_context(metadata), _MOST_CONTEXT)
        try:
            self.recipe: Mapping[str, Any] = read_recipe(metadata)
        except ExportError as error:
            raise ExportError(f"{path}: {error}") from error
        self._model: Any = _load(self.path, length, threads, cache_type)
        self._vocabulary = llama_cpp.llama_model_get_vocab(self._model.model)
        self._pieces = Pieces(self._vocabulary)
        self._batch = llama_cpp.llama_batch_init(_BATCH, 0, 1)
        self._scoring: LlamaCppSequences | None = None
        self.vocabulary_size = int(self._model.n_vocab())
        self.context_length = min(length, int(self._model.n_ctx()))  # llama.cpp rounds it up
        self.stop_ids = frozenset(metadata.get(STOP_IDS) or self._named_stops(metadata))

    def has_chat_template(self) -> bool:
        return bool(self._model.metadata.get(TEMPLATE))

    def encode_text(self, text: str) -> list[int]:
        """Token ids as llama.cpp finds them."""
        return list(self._model.tokenize(text.encode(), add_bos=True, special=True))

    def encode_message(self, text: str) -> list[int]:
        """Token ids of the text that the template in the file makes of a message."""
        return self.encode_rendered(self._render(self._model.metadata[TEMPLATE], text))

    @property
    def chat_template(self) -> str | None:
        """As it stands in the file."""
        return self._model.metadata.get(TEMPLATE)

    @property
    def special_tokens(self) -> Mapping[str, str]:
        """Beginning and end of a text, where the file names them; llama.cpp would give others in their place."""
        named = {"bos": self._model.token_bos(), "eos": self._model.token_eos()}
        return {
            f"{name}_token": self._text(token)
            for name, token in named.items()
            if f"tokenizer.ggml.{name}_token_id" in self._model.metadata
        }

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Control tokens of the vocabulary, and those that end a text."""
        is_control = llama_cpp.llama_vocab_is_control
        return self.stop_ids | {index for index in range(self.vocabulary_size) if is_control(self._vocabulary, index)}

    def encode_rendered(self, text: str) -> list[int]:
        """Token ids as llama.cpp finds them."""
        return list(self._model.tokenize(text.encode(), add_bos=False, special=True))

    def open_sequences(self, count: int, length: int) -> Sequences:
        """A second cache, of `count` texts, beside the one of `feed`."""
        return LlamaCppSequences(self._model, self.name, count, min(length, self.context_length))

    def score_side_by_side(
        self, contexts: Sequence[Sequence[int]], rests: Sequence[tuple[int, Sequence[int]]]
    ) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]] | None:
        """In a second cache, which is kept for the next call and grows where it must."""
        longest = max(len(contexts[number]) + len(rest) for number, rest in [*enumerate([()] * len(contexts)), *rests])
        held = self._scoring
        if held is None or held.count < len(contexts) or held.length < longest:
            if held is not None:
                held.close()
            self._scoring = held = LlamaCppSequences(self._model, self.name, len(contexts), longest)
        return held.score(contexts, rests)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of tokens; bytes that are no whole character yet become U+FFFD."""
        text = b"".join([self._pieces[token] for token in ids])
        if ids and ids[0] == self._model.token_bos():
            text = text.removeprefix(b" ")  # which SentencePiece puts before a text
        return text.decode("utf-8", errors="replace")

    def restart(self) -> None:
        """Empty the cache."""
        super().restart()
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._model.ctx), True)

    def rewind(self, position: int) -> bool:
        """A recurrent state cannot go back, nor a window that has dropped its beginning."""
        memory = llama_cpp.llama_get_memory(self._model.ctx)
        if llama_cpp.llama_memory_seq_pos_min(memory, 0) or not llama_cpp.llama_memory_seq_rm(memory, 0, position, -1):
            return False
        self.position = position
        return True

    def compute(self, ids: Sequence[int], *, every: bool) -> NDArray[np.float32]:
        """float32 logits; long inputs go through 512 tokens at a time."""
        found = []
        for start in range(0, len(ids), _BATCH):
            batch = ids[start : start + _BATCH]
            last = start + len(batch) == len(ids)
            wanted = range(len(batch)) if every else range(len(batch) - 1, len(batch)) if last else range(0)
            found += self._run(batch, self.position + start, wanted)
        return np.stack(found)

    def close(self) -> None:
        """Free model and cache."""
        if self._scoring is not None:
            self._scoring.close()
            self._scoring = None
        if self._model is not None:
            llama_cpp.llama_batch_free(self._batch)
            self._model.close()
            self._model = None

    def _run(self, ids: Sequence[int], position: int, wanted: range) -> list[NDArray[np.float32]]:
        batch = self._batch
        batch.n_tokens = len(ids)
        for index, token in enumerate(ids):
            batch.token[index], batch.pos[index] = token, position + index
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, 0
            batch.logits[index] = index in wanted
        status = llama_cpp.llama_decode(self._model.ctx, batch)
        if status:
            raise ExportError(f"{self.path}: llama.cpp could not decode a batch of {len(ids)} tokens (status {status})")
        return [self._logits(index) for index in wanted]

    def _logits(self, index: int) -> NDArray[np.float32]:
        row = llama_cpp.llama_get_logits_ith(self._model.ctx, index)
        if not row:
            raise ExportError(f"{self.path}: llama.cpp has no logits of token {index}")
        return np.ctypeslib.as_array(row, shape=(self.vocabulary_size,)).copy()

    def _named_stops(self, metadata: Mapping[str, Any]) -> list[int]:
        """Tokens that llama.cpp itself takes for the end of a text; none in a file of ours that names none."""
        if VERSION in metadata and EOS not in metadata:
            return []
        is_end = llama_cpp.llama_vocab_is_eog
        return [index for index in range(self.vocabulary_size) if is_end(self._vocabulary, index)]

    def _render(self, template: str, text: str) -> str:
        """What transformers makes of the template, so that a message is the same text in every runtime."""
        from transformers.utils.chat_template_utils import render_jinja_template

        messages, special = [[{"role": "user", "content": text}]], self.special_tokens
        written, _ = render_jinja_template(messages, chat_template=template, add_generation_prompt=True, **special)
        return str(written[0])

    def _text(self, token: int) -> str:
        return str(self._model._model.token_get_text(token))


def _load(path: Path, context_length: int, threads: int | None, cache_type: CacheType) -> Any:
    if not path.is_file():
        raise ExportError(f"{path}: there is no such file")
    require_working_amx(path)
    cache = _CACHE_IDS[cache_type]
    # llama.cpp has no quantized values without flash attention.
    options = {"type_k": cache, "type_v": cache, "flash_attn": cache_type == "Q8_0"}
    try:
        return llama_cpp.Llama(
            str(path),
            n_ctx=context_length,
            n_batch=_BATCH,
            n_ubatch=_BATCH,
            n_threads=threads,
            n_threads_batch=threads,
            verbose=False,
            **options,
        )
    except (ValueError, RuntimeError) as error:
        raise ExportError(f"{path}: llama.cpp cannot load it: {error}") from error


def _trained_context(metadata: Mapping[str, Any]) -> int:
    """Positions the model was trained for."""
    return int(metadata.get(f"{metadata.get('general.architecture')}.context_length", _MOST_CONTEXT))
