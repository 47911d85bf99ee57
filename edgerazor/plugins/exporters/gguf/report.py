"""What an export says about itself: keys in the file, and figures for the person who ran it."""

from pathlib import Path
from typing import Any

from edgerazor.core.contracts import Checkpoint, ExportResult
from edgerazor.plugins.exporters.common import RECIPE, describe_origin, rows_by_type
from edgerazor.plugins.exporters.gguf.blocks import BLOCK_TYPES
from edgerazor.plugins.exporters.gguf.plan import Entry, GGUFPlan

# general.file_type, which names what most of the weights are; llama.cpp shows it and ignores it.
_FILE_TYPES = {
    "F32": 0,
    "F16": 1,
    "Q4_0": 2,
    "Q8_0": 7,
    "Q2_K": 10,
    "Q4_K": 14,
    "BF16": 32,
    "TQ1_0": 36,
    "TQ2_0": 37,
    "Q2_0": 41,
}


def general_keys(checkpoint: Checkpoint, plan: GGUFPlan) -> dict[str, Any]:
    """Keys that say what the file is and which checkpoint it was made of."""
    model = (checkpoint.recipe.get("model") or {}).get("name_or_path") or checkpoint.folder.name
    weights: dict[str, int] = {}
    for entry in plan.entries:
        weights[entry.type_name] = weights.get(entry.type_name, 0) + entry.facts.weights
    origin = describe_origin(checkpoint)
    recipe = origin.pop(RECIPE)  # last, as in every file so far
    return {
        "general.type": "model",
        "general.name": Path(str(model)).name,
        "general.file_type": _FILE_TYPES[max(weights, key=lambda name: weights[name])],
        "general.quantization_version": 2,
        "general.alignment": 32,
        **origin,
        "edgerazor.nominal_bits": _nominal_bits(plan.quantized),
        "edgerazor.file_bits": _file_bits(plan.quantized),
        RECIPE: recipe,
    }


def describe_export(path: Path, plan: GGUFPlan) -> ExportResult:
    """Size, bits per weight by tensor type, and remarks; `details` is plain data."""
    size = path.stat().st_size
    parameters = sum(entry.facts.weights for entry in plan.entries)
    body = [entry for entry in plan.quantized if entry.facts.role.layer is not None]
    details: dict[str, Any] = {
        "types": _by_type(plan.entries),
        "nominal_bits": _nominal_bits(plan.quantized),
        "file_bits": _file_bits(plan.quantized),
        "body_bits": _file_bits(body),
        "parameters": parameters,
        "compression": 2 * parameters / size,
        "tied": plan.tied,
        "unquantized": [entry.facts.name for entry in plan.entries if not entry.facts.quantized],
        "left_out": list(plan.left_out),
        "notes": [*_matrix_notes(plan), *plan.notes],
    }
    return ExportResult(path, size, _file_bits(plan.quantized), details)


def _by_type(entries: list[Entry]) -> dict[str, dict[str, Any]]:
    smallest_first = sorted(entries, key=lambda entry: entry.bits)
    types = rows_by_type((entry.type_name, entry.facts.weights, entry.bytes) for entry in smallest_first)
    for name, row in types.items():
        row["backends"] = BLOCK_TYPES[name].backends if name in BLOCK_TYPES else ""
    return types


def _matrix_notes(plan: GGUFPlan) -> list[str]:
    left = [entry.facts for entry in plan.entries if not entry.facts.quantized and len(entry.facts.shape) > 1]
    notes = [f"{facts.module} was not quantized and stays {str(facts.dtype).removeprefix('torch.')}" for facts in left]
    if plan.left_out:
        notes.append(f"{len(plan.left_out)} tensors outside the text model are not in this file")
    return notes


def _nominal_bits(entries: list[Entry]) -> float:
    weights = sum(entry.facts.weights for entry in entries)
    return sum(entry.facts.nominal_bits * entry.facts.weights for entry in entries) / max(weights, 1)


def _file_bits(entries: list[Entry]) -> float:
    return 8 * sum(entry.bytes for entry in entries) / max(sum(entry.facts.weights for entry in entries), 1)
