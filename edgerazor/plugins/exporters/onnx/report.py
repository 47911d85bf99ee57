"""Figures and remarks of an export, for the person who ran it."""

import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgerazor.core.contracts import Checkpoint, ExportResult
from edgerazor.plugins.exporters.common import rows_by_type
from edgerazor.plugins.exporters.onnx.folder import DATA, MODEL
from edgerazor.plugins.exporters.onnx.genai_tokens import genai_token_notes
from edgerazor.plugins.exporters.onnx.kernels import measure_2bit, slow_kernel_note
from edgerazor.plugins.exporters.onnx.plan import Matrix, ONNXPlan, positions_of_one_rotation
from edgerazor.plugins.exporters.params import ONNXParams


def describe_export(path: Path, checkpoint: Checkpoint, plan: ONNXPlan, params: ONNXParams) -> ExportResult:
    """Size of the folder, bits per weight by width, and remarks; `details` is plain data."""
    sizes = {file.name: file.stat().st_size for file in path.iterdir()}
    matrices = list(plan.matrices.values())
    genai = not (params.portable or plan.facts.image)
    body = [matrix for matrix in matrices if matrix.kind not in ("embedding", "head")]
    details: dict[str, Any] = {
        "types": _by_width(matrices),
        "nominal_bits": sum(matrix.nominal_bits * matrix.weights for matrix in matrices) / max(_weights(matrices), 1),
        "file_bits": _bits(matrices),
        "body_bits": _bits(body),
        "model_bytes": sizes[MODEL] + sizes.get(DATA, 0),
        "peak_memory_bytes": peak_memory(),
        "tied": plan.facts.tied,
        "unquantized": list(plan.floats),
        "context_length": plan.context_length,
        "notes": [*_notes(checkpoint, plan, params), *(genai_token_notes(path) if genai else [])],
    }
    return ExportResult(path, sum(sizes.values()), _bits(matrices), details)


def peak_memory() -> int:
    """Bytes that this process held at most."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _notes(checkpoint: Checkpoint, plan: ONNXPlan, params: ONNXParams) -> Iterator[str]:
    yield from _storage_notes(plan.multiplied, params)
    two_bit = [rows for matrix in plan.multiplied for rows in matrix.row_groups if rows.bits == 2]
    if two_bit and not params.portable:
        larger = sum(rows.count * rows.columns // 4 for rows in two_bit)
        yield (
            "2-bit products are fast on x86 with AVX-512 VNNI; for AVX2 or ARM export with ternary_storage=4bit "
            f"({larger / 1e6:.1f} MB more)"
        )
        yield from filter(None, [_kernel_note(plan)])
    quantization = checkpoint.recipe.get("quantization") or {}
    yield _activation_note(plan.multiplied, quantization.get("activations"), params)
    if plan.facts.image:
        yield from _image_notes(plan, quantization.get("activations"))
        return
    bits = (quantization.get("kv_cache") or {}).get("bits")
    if bits:
        yield f"the key/value cache was trained in {bits} bits; this file keeps it in float32"
    if plan.context_length == positions_of_one_rotation(plan.facts) < plan.facts.context:
        yield f"context_length {plan.context_length}: in longer texts longrope turns every position otherwise"
    if params.portable:
        yield "portable: the cache grows by copying, and onnxruntime-genai cannot run it; ONNX Runtime and others can"


def _image_notes(plan: ONNXPlan, trained: Any) -> Iterator[str]:
    image, count = plan.facts.image, len(plan.matrices) - len(plan.multiplied)
    assert image is not None
    size = "of any height and width" if image.any_size else f"of {image.height} × {image.width}"
    yield f"pixel_values are images {size}, any number of them, as preprocessor_config.json makes them"
    if count:
        inputs = "inputs were trained rounded, but " if trained else ""
        convolutions = "1 convolution computes" if count == 1 else f"{count} convolutions compute"
        yield f"{convolutions} with float32: {inputs}weights are made of the codes when a session opens"


def _kernel_note(plan: ONNXPlan) -> str | None:
    """Measured here; None if it is fast, or if onnxruntime is not installed and nothing can be known."""
    try:
        return slow_kernel_note(measure_2bit(plan))
    except ImportError:
        return None


def _storage_notes(matrices: list[Matrix], params: ONNXParams) -> Iterator[str]:
    inside = [matrix for matrix in matrices if matrix.mixed_inside]
    if inside:
        yield f"{len(inside)} matrices mix widths inside rows; each row takes its largest"
    gathered = [matrix for matrix in matrices if matrix.row_groups[0].rows.period == 0]
    if gathered:
        yield f"{len(gathered)} matrices mix rows in no fixed period ({gathered[0].module}); to order them costs time"
    widened = [matrix for matrix in matrices if matrix.nominal_bits < 2.9 and matrix.row_groups[-1].bits == 4]
    if widened and params.ternary_storage == "2bit":
        yield f"{len(widened)} matrices hold ternary rows in 4 bits ({widened[0].module}): no 2-bit operand fits them"


def _activation_note(matrices: list[Matrix], trained: Any, params: ONNXParams) -> str:
    blocks: dict[int, int] = {}
    for matrix in matrices:
        if matrix.kind != "embedding":
            for rows in matrix.row_groups:
                blocks[rows.block] = blocks.get(rows.block, 0) + 1
    used = ", by ".join(f"{size} in {count} products" for size, count in sorted(blocks.items())) or "nothing"
    how = f"the runtime rounds them to int8 in groups: by {used}"
    if params.accuracy_level == 0:
        how = "this file computes with float32 ones (accuracy_level=0), many times slower than with 4"
    if not trained:
        return f"activations were trained unquantized; {how}"
    group = trained.get("group_size")
    return f"activations were trained in {trained.get('bits')} bits, groups of {group or 'a whole row'}; {how}"


def _by_width(matrices: list[Matrix]) -> dict[str, dict[str, Any]]:
    return rows_by_type(
        (
            f"{rows.bits}-bit {'blocks' if matrix.shape is None else 'convolutions, groups'} of {rows.block}",
            rows.count * rows.columns,
            rows.bytes,
        )
        for matrix in matrices
        for rows in matrix.row_groups
    )


def _weights(matrices: list[Matrix]) -> int:
    return sum(matrix.weights for matrix in matrices)


def _bits(matrices: list[Matrix]) -> float:
    return 8 * sum(matrix.bytes for matrix in matrices) / max(_weights(matrices), 1)
