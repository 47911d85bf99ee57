"""The students outside of training: exported, timed, asked, and compared token by token."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from edgerazor import load_model
from edgerazor.core.contracts import Runtime
from edgerazor.core.registry import Registry
from edgerazor.errors import ExportError
from edgerazor.export.export import export_to
from edgerazor.inference.open_runtime import open_runtime
from edgerazor.kernels.processor import this_processor
from edgerazor.models.transformers_runtime import TransformersRuntime
from smollm2_demo.greedy import Written, compare, read_along, write_greedily
from smollm2_demo.int8_inputs import int8_inputs
from smollm2_demo.measure import GREEDY_PROMPTS, QUESTIONS, answers, speed
from smollm2_demo.options import Options
from smollm2_demo.tasks import read_items, score

ENGINES = {"gguf": "llama.cpp", "onnx": "ONNX Runtime"}


class Engines:
    """Runtimes of the run's models.

    Args:
        options: of the run.
        teacher: folder of the 16-bit model.
        registry: loaded plugins.
    """

    def __init__(self, options: Options, teacher: Path, registry: Registry):
        self.options, self.teacher, self.registry = options, teacher, registry
        for name in ("gguf", "onnx"):  # imported now, so that a missing extra is known before training
            registry.build(registry.params("exporter", name, path=str(options.output / name)))

    @property
    def has_llama_cpp(self) -> bool:
        """Without it GGUF files are written and compared, and not run."""
        return find_spec("llama_cpp") is not None

    def folder(self, student: str) -> Path:
        """Where a student lies."""
        return self.options.output / student

    def packed(self, student: str) -> Path:
        """The distilled student as it was trained."""
        return self.folder(student) / "run" / "packed"

    def export(self, student: str) -> Mapping[str, Any]:
        """Write `model.gguf` and `onnx/`, every weight of which is compared with the packed checkpoint."""
        gguf = self._export(student, "gguf", "model.gguf", "profile=size")
        onnx = self._export(student, "onnx", "onnx", "logits=last", self._ternary_storage())
        return {"gguf": gguf, "onnx": onnx}

    def speeds(self, student: str) -> list[Mapping[str, Any]]:
        """Speed of the packed checkpoint and of the exports."""
        found = []
        for kind, path in {"packed": self.packed(student), **self._exports(student)}.items():
            with self._opened(lambda path=path: open_runtime(path, registry=self.registry)) as runtime:
                found.append({"kind": kind, **speed(runtime, self.options.sizes.speed_tokens)})
        return found

    def teacher_speed(self) -> list[Mapping[str, Any]]:
        """Speed of the 16-bit model in Transformers, as it is stored."""
        with self._opened(self._open_teacher) as runtime:
            return [{"kind": "packed", **speed(runtime, self.options.sizes.speed_tokens)}]

    def ask(self, student: str | None) -> list[str]:
        """Answers of a student, of the file for llama.cpp where that can be run; of the teacher without one."""
        path = None if student is None else self._exports(student).get("gguf", self.packed(student))
        with self._opened(lambda: self._open(path)) as runtime:
            return answers(runtime, QUESTIONS[: self.options.sizes.questions], self.options.sizes.answer_tokens)

    def task(self, path: Path | None, task: Path) -> Mapping[str, float]:
        """Multiple choice of a packed checkpoint, or of the teacher."""
        items = read_items(task, self.options.sizes.task_items)
        with self._opened(lambda: self._open(path)) as runtime:
            return score(runtime, items)

    def same_tokens(self, student: str) -> Mapping[str, Any]:
        """Greedy texts with inputs, keys and values left in 32 bits: packed, in llama.cpp and in ONNX Runtime.

        llama.cpp has no such setting: it rounds the inputs of products to int8, so only there a near-tie may fall the
        other way. What such rounding does to the packed checkpoint is measured, too.
        """
        exact = self.folder(student) / "onnx-float32"
        leave_inputs(self.folder(student) / "onnx", exact)
        prompts = GREEDY_PROMPTS[: self.options.sizes.greedy_prompts]
        texts = self._exact_texts(self.packed(student), prompts)
        found = {}
        for engine, path in {**self._exports(student), "onnx": exact}.items():
            with self._opened(lambda path=path: open_runtime(path, registry=self.registry)) as runtime:
                pairs = [
                    compare(text, read_along(runtime, prompt, text.ids), rounded if engine == "gguf" else None)
                    for prompt, (text, rounded) in zip(prompts, texts, strict=True)
                ]
            found[ENGINES[engine]] = [{**asdict(pair), "tie": pair.tie} for pair in pairs]
        shutil.rmtree(exact)
        return found

    def _exports(self, student: str) -> dict[str, Path]:
        """What can be run here."""
        gguf = {"gguf": self.folder(student) / "model.gguf"} if self.has_llama_cpp else {}
        return {**gguf, "onnx": self.folder(student) / "onnx"}

    def _export(self, student: str, exporter: str, place: str, *settings: str) -> Mapping[str, Any]:
        path = self.folder(student) / place
        result = export_to(self.packed(student), exporter, path, settings, registry=self.registry)
        return {"path": str(path), "bytes": result.bytes}

    def _ternary_storage(self) -> str:
        """As the page on ONNX Runtime advises for this processor."""
        return f"ternary_storage={'2bit' if this_processor().vnni else '4bit'}"

    @contextmanager
    def _opened(self, opening: Callable[[], Runtime]) -> Iterator[Runtime]:
        runtime = opening()
        try:
            yield runtime
        finally:
            runtime.close()

    def _open(self, path: Path | None) -> Runtime:
        return self._open_teacher() if path is None else open_runtime(path, registry=self.registry)

    def _open_teacher(self) -> Runtime:
        # In the type that the processor is fast in, as a packed checkpoint is.
        dtype = torch.bfloat16 if this_processor().bfloat16 else torch.float32
        model = AutoModelForCausalLM.from_pretrained(self.teacher, dtype=dtype)
        return TransformersRuntime(model, AutoTokenizer.from_pretrained(self.teacher))

    def _exact_texts(self, packed: Path, prompts: Sequence[str]) -> list[tuple[Written, Written]]:
        """What a checkpoint writes with its weights alone quantized; its logits for that with inputs in int8, too."""
        model: Any = load_model(packed, dequantize=True, dtype=torch.float32, registry=self.registry)
        with self._opened(lambda: TransformersRuntime(model, AutoTokenizer.from_pretrained(packed))) as runtime:
            texts = [write_greedily(runtime, prompt, self.options.sizes.greedy_tokens) for prompt in prompts]
            with int8_inputs(model, self.registry):
                rounded = [read_along(runtime, prompt, text.ids) for prompt, text in zip(prompts, texts, strict=True)]
        return list(zip(texts, rounded, strict=True))


def leave_inputs(folder: Path, target: Path) -> None:
    """An exported folder again, whose products round their inputs no more; weights are the same file.

    Raises:
        ExportError: there are no such products in the graph.
    """
    import onnx

    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target, copy_function=os.link)
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    levels = [value for node in model.graph.node for value in node.attribute if value.name == "accuracy_level"]
    if not levels:
        raise ExportError(f"{folder}: holds no product with an accuracy_level")
    for level in levels:
        level.i = 0
    (target / "model.onnx").unlink()
    onnx.save(model, target / "model.onnx")
