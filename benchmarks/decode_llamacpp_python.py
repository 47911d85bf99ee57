"""A GGUF file in llama.cpp, by llama-cpp-python: the runtime of `edgerazor generate`."""

from typing import Any

import llama_cpp
from decode_engine import Written, answer, by_steps, main

from edgerazor.plugins.exporters.gguf.runtime import LlamaCppRuntime


class LlamaCppEngine:
    def __init__(self, request: dict[str, Any]):
        self._runtime = LlamaCppRuntime(request["model"], context_length=request["context"], threads=request["threads"])
        self.version = f"llama-cpp-python {llama_cpp.__version__}"

    def write(self, prompt: list[int], count: int) -> Written:
        self._runtime.restart()
        return by_steps(lambda ids: int(self._runtime.feed(ids)[-1].argmax()), prompt, count)


def work(request: dict[str, Any]) -> dict[str, Any]:
    return answer(LlamaCppEngine, request)


if __name__ == "__main__":
    main(work)
