"""A GGUF file in ik_llama.cpp, by ik-llama-cpp-python; logits are read where the library keeps them."""

from typing import Any

import ik_llama_cpp
import numpy as np
from decode_engine import Written, answer, by_steps, main
from ik_llama_cpp import _ctypes_api as library
from ik_llama_cpp._internals import make_batch_range


class IkEngine:
    def __init__(self, request: dict[str, Any]):
        # Its attention without flash: with it, processors without AVX-VNNI end in an assertion, as its authors say.
        options = {"n_ctx": request["context"], "n_threads": request["threads"], "flash_attn": False}
        self._model = ik_llama_cpp.IkLlama(request["model"], verbose=False, **options)
        self.version = f"ik-llama-cpp-python {ik_llama_cpp.__version__}"

    def write(self, prompt: list[int], count: int) -> Written:
        context, words = self._model._context, self._model._model.n_vocab
        context.kv_cache_clear()
        position = 0

        def feed(ids: list[int]) -> int:
            nonlocal position
            batch = make_batch_range(ids, pos_start=position, logits_last=True)
            status = context.decode(batch)
            library.llama_batch_free(batch)
            if status:
                raise RuntimeError(f"llama_decode: status {status}")
            position += len(ids)
            return int(np.ctypeslib.as_array(context.get_logits(-1), shape=(words,)).argmax())

        return by_steps(feed, prompt, count)


def work(request: dict[str, Any]) -> dict[str, Any]:
    return answer(IkEngine, request)


if __name__ == "__main__":
    main(work)
