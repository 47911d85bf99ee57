"""What is known of a run: its folder, whole or interrupted, or a packed, exported or 16-bit model alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgerazor.checkpoint.section import CONFIG, MANIFEST
from edgerazor.checkpoint.training_checkpoint import TRAINER_STATE, saved_steps
from edgerazor.core.contracts.exporter import size_of
from edgerazor.core.json_files import read_json
from edgerazor.core.registry import Registry
from edgerazor.core.run_folder import CHECKPOINTS, METRICS, PACKED, RECIPE
from edgerazor.errors import CheckpointError
from edgerazor.inference.open_runtime import is_exported
from edgerazor.report.history import History, held_out_figures, last_figures
from edgerazor.report.packed import PackedFacts, packed_facts
from edgerazor.schemas.recipe import load_recipe


@dataclass(frozen=True)
class RunRecord:
    """A run, as far as it is on the disk.

    Attributes:
        name: by which people tell it from the others.
        path: that was given.
        kind: what that is.
        model: file or folder that can answer; None if nothing can.
        recipe: as plain data; empty where nothing says it.
        history: what was logged, by step.
        figures: held-out figures by name; empty if none were measured.
        packed: what the packed checkpoint says; None without one.
        settled: layers that calibration fixed, by the name of the loss.
        step, last_step: optimizer steps made, and how many there were to be; None where nothing says it.
        finished: the run came to its end.
        tokens: that were trained on.
    """

    name: str
    path: Path
    kind: str
    model: Path | None
    recipe: Mapping[str, Any]
    history: History = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    packed: PackedFacts | None = None
    settled: Mapping[str, Sequence[int]] = field(default_factory=dict)
    step: int | None = None
    last_step: int | None = None
    finished: bool = True
    tokens: int | None = None

    @property
    def bytes(self) -> int | None:
        """Of the model, its tokenizer included."""
        return None if self.model is None else size_of(self.model)

    @property
    def is_training(self) -> bool:
        """Whether it is the folder of a run, not a model alone."""
        return self.kind == RUN


RUN = "training run"


def read_run(name: str, path: Path, registry: Registry) -> RunRecord:
    """Read what there is; no tensor is read.

    Raises:
        CheckpointError: there is nothing at the path, nothing of a run, or a file in it is damaged.
        RecipeError: its recipe cannot be read, or asks for a plugin that is not installed.
    """
    if path.is_dir() and any((path / part).exists() for part in (METRICS, CHECKPOINTS, PACKED)):
        return _read_folder(name, path, registry)
    if (path / MANIFEST).is_file():
        facts = packed_facts(path, registry)
        return _with_packed(RunRecord(name, path, "packed checkpoint", path, facts.recipe), facts)
    if path.exists() and is_exported(path, registry):
        return RunRecord(name, path, "exported model", path, {})
    if (path / CONFIG).is_file() and "quantization_config" not in read_json(path / CONFIG):
        return RunRecord(name, path, "16-bit model", path, {})
    raise CheckpointError(_why_none(path))


def _why_none(path: Path) -> str:
    if not path.exists():
        return f"{path}: there is no such file or folder"
    expected = "expected the folder of `edgerazor train`, a packed checkpoint, an exported model or a 16-bit model"
    inside = sorted(folder.name for folder in path.iterdir() if (folder / PACKED).is_dir()) if path.is_dir() else []
    hint = f"; runs lie in it: give {' '.join(str(path / name) for name in inside[:3])}" if inside else ""
    return f"{path}: is no run: {expected}{hint}"


def _read_folder(name: str, path: Path, registry: Registry) -> RunRecord:
    metrics = read_json(path / METRICS) if (path / METRICS).exists() else {}
    state_file = next((folder / TRAINER_STATE for folder in reversed(saved_steps(path / CHECKPOINTS))), None)
    state = read_json(state_file) if state_file is not None and state_file.exists() else {}
    finished = bool(metrics) and _whole(metrics, "steps", path / METRICS) >= state.get("global_step", 0)
    source, history = (
        (path / METRICS, metrics.get("history", [])) if finished else (state_file, state.get("log_history", []))
    )
    if not isinstance(history, list) or not all(isinstance(entry, dict) for entry in history):
        raise CheckpointError(f"{source}: its log is no list of objects; the file is damaged")
    packed = path / PACKED if (path / PACKED).is_dir() else None
    step = metrics.get("steps") if finished else state.get("global_step")
    last = step if finished else state.get("max_steps")
    record = RunRecord(
        name,
        path,
        RUN,
        packed,
        _read_recipe(path / RECIPE, registry),
        history=history,
        figures=held_out_figures(_mapping(metrics, "evaluation", path / METRICS))
        if finished
        else last_figures(history),
        settled=_mapping(metrics, "layers", path / METRICS),
        step=step,
        last_step=last if isinstance(last, int) and 0 < last < 10**9 else None,  # a run by the clock has no last step
        finished=finished,
        tokens=metrics.get("tokens") if finished else state.get("num_input_tokens_seen"),
    )
    return record if packed is None else _with_packed(record, packed_facts(packed, registry))


def _with_packed(record: RunRecord, facts: PackedFacts) -> RunRecord:
    figures = record.figures if record.figures or not record.finished else held_out_figures(facts.evaluation)
    return replace(record, packed=facts, recipe=record.recipe or facts.recipe, figures=figures)


def _read_recipe(path: Path, registry: Registry) -> Mapping[str, Any]:
    return load_recipe(path, registry=registry).to_dict() if path.exists() else {}


def _mapping(content: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any]:
    value = content.get(key) or {}
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: {key}: expected an object, found {type(value).__name__}")
    return value


def _whole(content: Mapping[str, Any], key: str, path: Path) -> int:
    value = content.get(key, 0)
    if not isinstance(value, int):
        raise CheckpointError(f"{path}: {key}: expected a whole number, found {value!r}")
    return value
