"""A GGUF file in llama.cpp, by xllamacpp, which comes compiled; times are those that its server states."""

from typing import Any

import xllamacpp
from decode_engine import Written, answer, main


class XllamacppEngine:
    def __init__(self, request: dict[str, Any]):
        params = xllamacpp.CommonParams()
        params.model.path, params.n_ctx, params.n_parallel = request["model"], request["context"], 1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = request["threads"]
        params.verbosity, params.warmup, params.cache_prompt = -1, False, False
        self._server = xllamacpp.Server(params)
        # Tokens come with their probabilities, which take time.
        self._named = {"logprobs": 1} if request["tokens"] else {}
        self.version = f"xllamacpp {xllamacpp.__version__}"

    def write(self, prompt: list[int], count: int) -> Written:
        # The likeliest token, whatever it is: a text does not end before the others do.
        asked = {"prompt": prompt, "n_predict": count, "temperature": 0.0, "cache_prompt": False, "ignore_eos": True}
        found = self._server.handle_completions({**asked, **self._named})
        tokens = [token["id"] for token in found["choices"][0]["logprobs"]["content"]] if self._named else []
        return Written(tokens, found["timings"]["prompt_ms"] / 1e3, found["timings"]["predicted_ms"] / 1e3)


def work(request: dict[str, Any]) -> dict[str, Any]:
    return answer(XllamacppEngine, request)


if __name__ == "__main__":
    main(work)
