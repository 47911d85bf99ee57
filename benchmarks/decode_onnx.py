"""An exported folder in ONNX Runtime (the runtime of `edgerazor generate`), or in onnxruntime-genai."""

import json
from typing import Any

from decode_engine import Engine, Written, answer, by_steps, main


class OnnxEngine:
    def __init__(self, request: dict[str, Any]):
        import onnxruntime

        from edgerazor.plugins.exporters.onnx.runtime import OnnxRuntime

        self._runtime = OnnxRuntime(request["model"], threads=request["threads"])
        self.version = f"onnxruntime {onnxruntime.__version__}"

    def write(self, prompt: list[int], count: int) -> Written:
        self._runtime.restart()
        return by_steps(lambda ids: int(self._runtime.feed(ids)[-1].argmax()), prompt, count)


class GenaiEngine:
    def __init__(self, request: dict[str, Any]):
        import onnxruntime_genai as genai

        self._genai, self._length = genai, request["context"]
        config = genai.Config(request["model"])
        threads = {"intra_op_num_threads": request["threads"]}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": threads}}}))
        self._model = genai.Model(config)
        self.version = f"onnxruntime-genai {genai.__version__}"

    def write(self, prompt: list[int], count: int) -> Written:
        params = self._genai.GeneratorParams(self._model)
        params.set_search_options(max_length=min(self._length, len(prompt) + count + 1), do_sample=False)
        generator = self._genai.Generator(self._model, params)

        def feed(ids: list[int]) -> int:
            if len(ids) > 1:
                generator.append_tokens(ids)
            generator.generate_next_token()
            return int(generator.get_next_tokens()[0])

        return by_steps(feed, prompt, count)


def work(request: dict[str, Any]) -> dict[str, Any]:
    engines: dict[str, type[Engine]] = {"onnxruntime": OnnxEngine, "genai": GenaiEngine}
    return answer(engines[request["kind"]], request)


if __name__ == "__main__":
    main(work)
