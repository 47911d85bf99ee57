"""Several texts in one batch of llama.cpp: the weights are read once for a token of each."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from edgerazor.core.contracts.sequences import Sequences, common_beginning
from edgerazor.errors import ExportError

_BATCH = 512
_STEP = 256  # llama.cpp makes a cache of a multiple of this


class LlamaCppSequences(Sequences):
    """A second context of llama.cpp, with a cache in 16 bit for each text (`kv_unified` is off).

    Args:
        model: `llama_cpp.Llama`; its weights are shared.
        name: of the file, for errors.
        count: texts at a time.
        length: tokens of each.

    Raises:
        ExportError: there is no memory for so many.
    """

    def __init__(self, model: Any, name: str, count: int, length: int):
        self.count, self.length, self._name = count, length, name
        self._vocabulary_size = int(model.n_vocab())
        self._held: list[list[int]] = [[] for _ in range(count)]
        # Flash attention, the default where the graph allows it, sums alike for one token and for many.
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_seq_max, params.kv_unified = count * -(-length // _STEP) * _STEP, count, False
        params.n_batch = params.n_ubatch = _BATCH
        params.n_threads = params.n_threads_batch = _threads()
        self._context = llama_cpp.llama_init_from_model(model.model, params)
        if not self._context:
            raise ExportError(f"{name}: llama.cpp has no memory for {count} texts of {length} tokens")
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch = llama_cpp.llama_batch_init(_BATCH, 0, 1)

    def begin(self, number: int, ids: Sequence[int]) -> Sequence[int]:
        """Keep what the place holds of the same beginning: a template's, or the earlier turns of the dialogue."""
        held = self._held[number]
        kept = common_beginning(held, ids)
        if not llama_cpp.llama_memory_seq_rm(self._memory, number, kept, -1):
            # A recurrent state cannot go back to an earlier token.
            llama_cpp.llama_memory_seq_rm(self._memory, number, -1, -1)
            kept = 0
        del held[kept:]
        return ids[kept:]

    def feed(self, steps: Mapping[int, Sequence[int]]) -> NDArray[np.float32]:
        """float32 logits; up to 512 tokens go through together."""
        tokens = [
            (number, token, len(self._held[number]) + index, index + 1 == len(ids))
            for number, ids in steps.items()
            for index, token in enumerate(ids)
        ]
        longest = 1 + max(position for _, _, position, _ in tokens)
        if longest > self.length:
            raise ExportError(f"{self._name}: {longest} tokens do not fit a context of {self.length}")
        found = self._run_all(tokens)
        for number, ids in steps.items():
            self._held[number] += ids
        return np.stack(found)

    def score(
        self, contexts: Sequence[Sequence[int]], rests: Sequence[tuple[int, Sequence[int]]]
    ) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]] | None:
        """As `Runtime.score_side_by_side`: a place for each context, and in it one rest after another.

        None: the model has a recurrent state, which cannot go back to where its context ended.
        """
        for number, context in enumerate(contexts):
            self._held[number] = []
            llama_cpp.llama_memory_seq_rm(self._memory, number, -1, -1)
            if len(context) > self.length:
                raise ExportError(f"{self._name}: {len(context)} tokens do not fit a context of {self.length}")
        last = self._run_all(
            [
                (number, token, position, position + 1 == len(context))
                for number, context in enumerate(contexts)
                for position, token in enumerate(context)
            ]
        )
        following: list[NDArray[np.float32]] = [np.zeros((0, self._vocabulary_size), np.float32)] * len(rests)
        waiting: dict[int, list[int]] = {}
        for index, (number, rest) in enumerate(rests):
            if rest:
                waiting.setdefault(number, []).append(index)
        while waiting:
            turn = {number: indices.pop(0) for number, indices in waiting.items()}
            waiting = {number: indices for number, indices in waiting.items() if indices}
            for number in turn:
                if not llama_cpp.llama_memory_seq_rm(self._memory, number, len(contexts[number]), -1):
                    return None
            found = iter(
                self._run_all(
                    [
                        (number, token, len(contexts[number]) + offset, True)
                        for number, index in turn.items()
                        for offset, token in enumerate(rests[index][1])
                    ]
                )
            )
            for index in turn.values():
                following[index] = np.stack([next(found) for _ in rests[index][1]])
        return np.stack(last), following

    def _run_all(self, tokens: Sequence[tuple[int, int, int, bool]]) -> list[NDArray[np.float32]]:
        """Logits of the wanted tokens, in their order.

        llama.cpp reads its weights once for texts whose numbers follow each other, and anew where one is out of line.
        """
        in_line = sorted(range(len(tokens)), key=lambda index: tokens[index][0])
        found: dict[int, NDArray[np.float32]] = {}
        for start in range(0, len(in_line), _BATCH):
            part = in_line[start : start + _BATCH]
            wanted = [index for index in part if tokens[index][3]]
            found.update(zip(wanted, self._run([tokens[index] for index in part]), strict=True))
        return [found[index] for index in sorted(found)]

    def close(self) -> None:
        """Free the cache; the model stays loaded."""
        if self._context:
            llama_cpp.llama_batch_free(self._batch)
            llama_cpp.llama_free(self._context)
            self._context = None

    def _run(self, tokens: Sequence[tuple[int, int, int, bool]]) -> list[NDArray[np.float32]]:
        batch = self._batch
        batch.n_tokens = len(tokens)
        for index, (number, token, position, wanted) in enumerate(tokens):
            batch.token[index], batch.pos[index], batch.logits[index] = token, position, wanted
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, number
        status = llama_cpp.llama_decode(self._context, batch)
        if status:
            raise ExportError(f"{self._name}: llama.cpp could not decode {len(tokens)} tokens (status {status})")
        return [self._logits(index) for index, (_, _, _, wanted) in enumerate(tokens) if wanted]

    def _logits(self, index: int) -> NDArray[np.float32]:
        row = llama_cpp.llama_get_logits_ith(self._context, index)
        if not row:
            raise ExportError(f"{self._name}: llama.cpp has no logits of token {index}")
        return np.ctypeslib.as_array(row, shape=(self._vocabulary_size,)).copy()


def _threads() -> int:
    """As many as OMP_NUM_THREADS says, else one per processor of this process."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    if said.isdecimal() and int(said):
        return int(said)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
