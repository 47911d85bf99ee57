"""The recipe of a contestant: the publication's, with what the contestant changes of it (docs/design/METHOD.md)."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quality_contestants import BODIES, LEARNING, SIGNED, Contestant


@dataclass(frozen=True)
class Setting:
    """What all contestants of one teacher share.

    Attributes:
        teacher: folder of the 16-bit model.
        group_size: of weights and activations.
        head_size: group size of keys and values.
        layers: decoder layers of the teacher.
        sources: files of documents by kind of text.
        held_out: file of documents.
    """

    teacher: Path
    group_size: int
    head_size: int
    layers: int
    sources: Mapping[str, Path]
    held_out: Path
    steps: int
    sequence_length: int
    batch_size: int
    learning_rate: float


def recipe_of(contestant: Contestant, setting: Setting, seed: int) -> dict[str, Any]:
    """The contestant's recipe; rows and their order depend on the seed and the kind of text alone."""
    raw = _published(contestant.bits, setting, seed)
    if contestant.signed:
        for rule in raw["quantization"]["weights"]:
            if rule["quantizer"].get("bits") == SIGNED["bits"]:
                rule["quantizer"] |= SIGNED
    raw["data"]["sources"] = _sources(contestant.data, setting.sources)
    raw["training"]["max_steps"] = steps = round(setting.steps * contestant.times)
    if contestant.allocated is not None:
        raw["training"]["allocation"] = copy.deepcopy(contestant.allocated)
    raw["evaluation"]["every_steps"] = max(steps // 4, 1)
    if contestant.kind not in LEARNING:
        raw["distillation"] = None
    _change(raw, contestant.changes, setting)
    return raw


def _change(raw: dict[str, Any], changes: Mapping[str, Any], setting: Setting) -> None:
    """Make changes, in place; a learning rate counts in the setting's, losses are the usual ones or changes of them."""
    usual = {loss["name"].removesuffix("_mse"): loss for loss in (raw["distillation"] or {}).get("losses", ())}
    for path, value in changes.items():
        *sections, key = path.split(".")
        section = raw
        for name in sections:
            section = section[name]
        section[key] = copy.deepcopy(value)
    for rule in raw["quantization"]["weights"]:
        rule["quantizer"].setdefault("group_size", setting.group_size)
    training = raw["training"]
    if changes.get("training.learning_rate"):
        training["learning_rate"] *= setting.learning_rate
    if training.get("lr_scheduler_kwargs", {}).get("num_decay_steps") == "half":
        training["lr_scheduler_kwargs"]["num_decay_steps"] = training["max_steps"] // 2
    if raw["distillation"]:
        raw["distillation"]["losses"] = [_written(loss, usual) for loss in raw["distillation"]["losses"]]


def _written(loss: Any, usual: Mapping[str, Any]) -> Any:
    """A loss by its name, or one of the usual ones with other values, or one of its own."""
    if isinstance(loss, str):
        return usual[loss]
    changed = dict(loss)
    return {**usual[changed.pop("like")], **changed} if "like" in loss else changed


def _sources(data: str, sources: Mapping[str, Path]) -> list[dict[str, Any]]:
    if data == "mixed":
        return [{"path": str(sources[kind]), "ratio": 0.5} for kind in ("human", "teacher")]
    return [{"path": str(sources[data])}]


def _published(bits: float, setting: Setting, seed: int) -> dict[str, Any]:
    """Quantizers, losses and weights of the publication; learning rate and schedule are those of the quickstart."""
    head = {"name": "int", "bits": 4, "group_size": setting.group_size}
    task, feature, rate = (0.05, 0.5, 0.3) if bits == 4 else (0.1, 0.1, 1.0)
    layers = {"name": "lafd", "top_k": min(3, setting.layers)}
    return {
        "model": {"name_or_path": str(setting.teacher)},
        "data": {
            "held_out": [{"path": str(setting.held_out)}],
            "sequence_length": setting.sequence_length,
            "seed": seed,
        },
        "quantization": {
            "weights": [
                {"match": ["*.embed_tokens", "lm_head"], "quantizer": head},
                {"match": "*", "quantizer": {**BODIES[bits], "group_size": setting.group_size}},
            ],
            "activations": {"name": "int", "bits": 8, "group_size": setting.group_size},
            "kv_cache": {"name": "int", "bits": 8, "group_size": setting.head_size},
        },
        "distillation": {
            "task_weight": task,
            "losses": [
                {"name": "eakld", "weight": 2.0, "temperature": 1.0, "uniform_support": 16},
                {"name": "feature_mse", "weight": feature, "layers": layers},
            ],
        },
        "training": {
            "learning_rate": setting.learning_rate * rate,
            "weight_decay": 0.0,
            "lr_scheduler_type": "cosine",
            "warmup_steps": 0.05,
            "per_device_train_batch_size": setting.batch_size,
            "logging_steps": 10,
            "save_strategy": "no",
            "seed": seed,
        },
        "evaluation": {"batches": 1, "batch_size": 16},
    }
