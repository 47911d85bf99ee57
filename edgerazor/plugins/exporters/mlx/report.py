"""Figures and remarks of an export, for the person who ran it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from edgerazor.core.contracts import Checkpoint, ExportResult
from edgerazor.core.contracts.exporter import size_of
from edgerazor.plugins.exporters.common import rows_by_type
from edgerazor.plugins.exporters.mlx.plan import Matrix, MLXPlan


def describe_export(path: Path, checkpoint: Checkpoint, plan: MLXPlan) -> ExportResult:
    """Size of the folder, bits per weight by layout, and remarks; `details` is plain data."""
    size, matrices = size_of(path), list(plan.matrices.values())
    body = [matrix for matrix in matrices if matrix.kind not in ("embedding", "head")]
    weights = sum(matrix.weights for matrix in matrices)
    details: dict[str, Any] = {
        "types": _by_layout(plan),
        "nominal_bits": sum(matrix.nominal_bits * matrix.weights for matrix in matrices) / max(weights, 1),
        "file_bits": _bits(matrices, plan.dtype),
        "body_bits": _bits(body, plan.dtype),
        "compression": 2 * plan.weights / size,
        "tied": plan.facts.tied,
        "unquantized": list(plan.floats),
        "notes": list(_notes(checkpoint, plan)),
    }
    return ExportResult(path, size, _bits(matrices, plan.dtype), details)


def _by_layout(plan: MLXPlan) -> dict[str, dict[str, Any]]:
    matrices = sorted(plan.matrices.values(), key=lambda matrix: (matrix.affine.bits, -matrix.affine.group_size))
    return rows_by_type(
        (f"{matrix.affine.bits}-bit groups of {matrix.affine.group_size}", matrix.weights, _bytes(matrix, plan.dtype))
        for matrix in matrices
    )


def _notes(checkpoint: Checkpoint, plan: MLXPlan) -> Iterator[str]:
    matrices = list(plan.matrices.values())
    mixed = [matrix for matrix in matrices if matrix.mixed]
    if mixed:
        yield (
            f"{len(mixed)} matrices mix rows of two widths and take the larger for all ({mixed[0].module}): MLX stores "
            "one width per matrix; presets with one width per tensor have the same budget"
        )
    repeated = [matrix for matrix in matrices if matrix.affine.repeats > 1]
    if repeated:
        yield f"{len(repeated)} matrices have wider groups than MLX; their scales are repeated ({repeated[0].module})"
    yield _dtype_note(plan)
    quantization = checkpoint.recipe.get("quantization") or {}
    if activations := quantization.get("activations"):
        yield f"activations were trained in {activations.get('bits')} bits; MLX leaves them in {_word(plan.dtype)}"
    if bits := (quantization.get("kv_cache") or {}).get("bits"):
        yield f"the key/value cache was trained in {bits} bits; mlx_lm keeps it in {_word(plan.dtype)} unless told"
    yield from _family_notes(plan)


def _dtype_note(plan: MLXPlan) -> str:
    if plan.dtype == torch.float32:
        groups = sum(2 * matrix.weights // matrix.affine.group_size for matrix in plan.matrices.values())
        others = sum(torch.Size(shape).numel() for shape in plan.floats.values())
        saved = 2 * (groups + others) / 1e6
        return f"MLX computes in float32, where weights are exact; with dtype=float16 the folder is {saved:.1f} MB less"
    rounded = [matrix for matrix in plan.matrices.values() if matrix.affine.offset > 2]
    wrong = "0.0074" if plan.dtype == torch.float16 else "0.055"
    return (
        f"MLX computes scale * q + bias in {_word(plan.dtype)}: ternary weights are exact, those of "
        f"{len(rounded)} wider matrices are not (4 bits: by up to {wrong} of a scale)"
    )


def _family_notes(plan: MLXPlan) -> Iterator[str]:
    facts = plan.facts
    scale = float(torch.tensor(facts.hidden**0.5).bfloat16())
    if plan.config["model_type"] == "gemma3_text" and scale != facts.embedding_scale:
        yield (
            f"mlx_lm rounds what it multiplies embeddings by to bfloat16: {scale:g} for {facts.embedding_scale:.6g}, "
            "as Transformers does in bfloat16"
        )
    rope = plan.config["rope_scaling"] or {}
    if rope.get("type") == "longrope":
        positions = rope["original_max_position_embeddings"]
        yield f"up to {positions} positions: in longer texts longrope turns every position otherwise"


def _bytes(matrix: Matrix, dtype: torch.dtype) -> int:
    return matrix.bytes(dtype.itemsize)


def _bits(matrices: list[Matrix], dtype: torch.dtype) -> float:
    return 8 * sum(_bytes(matrix, dtype) for matrix in matrices) / max(sum(matrix.weights for matrix in matrices), 1)


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
