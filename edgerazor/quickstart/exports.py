"""The quickstart's students in other engines: exported, read back, run, and measured as they lie on disk."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgerazor.core.contracts import ExportResult, Runtime
from edgerazor.core.registry import Registry
from edgerazor.core.run_folder import PACKED
from edgerazor.errors import PluginError
from edgerazor.evaluate.exported import evaluate_runtime
from edgerazor.export.export import export_checkpoint
from edgerazor.inference.generate import GenerationSettings, generate_text
from edgerazor.inference.open_runtime import open_runtime
from edgerazor.quickstart.prebuilt_llamacpp import write_text
from edgerazor.quickstart.results import Row
from edgerazor.quickstart.variants import DISTILLED


@dataclass(frozen=True)
class Target:
    """One kind of export.

    Attributes:
        exporter: its name.
        settings: its parameters.
        place: file or folder inside the student's folder.
        engine: what runs it, for the table.
        extras: what has to be installed for all of it.
    """

    exporter: str
    settings: Mapping[str, Any]
    place: str
    engine: str
    extras: str


TARGETS = (
    Target("gguf", {"profile": "size"}, "model.gguf", "llama.cpp", "gguf,llamacpp"),
    Target("onnx", {"context_length": 512}, "onnx", "ONNX Runtime", "onnx"),
)
EXPORTED = [variant for variant in DISTILLED if variant.bits in (1.88, 1.58)]


@dataclass(frozen=True)
class Comparison:
    """What every exported file is measured with: the teacher, held-out rows, how many, and a prompt."""

    teacher: Runtime
    held_out: Any
    rows: int
    prompt: str


def export_students(
    output: Path, comparison: Comparison, *, registry: Registry, say: Callable[[str], None]
) -> Iterator[tuple[Row, str]]:
    """Export the students of few bits to every target; rows of what could be run, and text that it wrote.

    What cannot be done because a package is absent is said, with how to install it. Without the bindings that measure a
    GGUF file, a llama.cpp that comes compiled writes text with it.

    Raises:
        ExportError: what was written differs from the checkpoint.
    """
    for target in TARGETS:
        for student in EXPORTED:
            folder = output / student.slug
            try:
                result = _export(folder, target, registry)
                say(f"exported {result.path}: {result.bytes / 1e6:.3f} MB, equal to the checkpoint")
            except PluginError as error:
                say(_what_to_install(error, target))
                break
            name = f"{student.bits:g} bit in {target.engine}"
            try:
                runtime = open_runtime(result.path, registry=registry)
            except PluginError as error:
                written = write_text(result.path, comparison.prompt, 64) if target.exporter == "gguf" else None
                if written is None:
                    say(_what_to_install(error, target))
                    break
                say(f"[{name}, {written[0]}] writes:\n{comparison.prompt}{written[1]}")
                continue
            try:
                figures = asdict(
                    evaluate_runtime(runtime, comparison.teacher, comparison.held_out, rows=comparison.rows)
                )
                kept = {key: figures[key] for key in ("loss", "bits_per_byte", "kl_teacher", "top1_agreement")}
                text = comparison.prompt + generate_text(runtime, comparison.prompt, GenerationSettings(64))
                say(f"[{name}, {runtime.engine}] writes:\n{text}")
                yield Row(name, "exported", student.bits, result.bits_per_weight, result.bytes, **kept), text
            finally:
                runtime.close()


def _what_to_install(error: PluginError, target: Target) -> str:
    return f"{error}\n  this step of the quickstart needs the extras [{target.extras}]"


def _export(folder: Path, target: Target, registry: Registry) -> ExportResult:
    path = folder / target.place
    exporter = registry.build(registry.params("exporter", target.exporter, path=str(path), **target.settings))
    return export_checkpoint(folder / PACKED, exporter, registry=registry)
