"""Figures and remarks of an export, for the person who ran it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgerazor.core.contracts import Checkpoint, ExportResult
from edgerazor.core.contracts.exporter import size_of
from edgerazor.plugins.exporters.common import rows_by_type
from edgerazor.plugins.exporters.compressed_tensors.plan import CompressedTensorsPlan, Matrix, per_token
from edgerazor.plugins.exporters.params import CompressedTensorsParams

# vLLM's kernel for CPUs takes sizes that are multiples of it, and 4 bits.
_CPU_MULTIPLE = 32
# Those of its kernels for GPUs; 0 is a whole row.
_GPU_GROUPS = (0, 32, 64, 128)


def describe_export(
    path: Path, checkpoint: Checkpoint, plan: CompressedTensorsPlan, params: CompressedTensorsParams
) -> ExportResult:
    """Size of the folder, bits per weight by width, and remarks; `details` is plain data."""
    matrices = list(plan.matrices.values())
    weights = sum(_weights(matrix) for matrix in matrices)
    nominal = sum(matrix.nominal_bits * _weights(matrix) for matrix in matrices) / max(weights, 1)
    stored = sum(size for _, _, size in _stored(matrices))
    details: dict[str, Any] = {
        "types": rows_by_type(_stored(matrices)),
        "nominal_bits": nominal,
        "file_bits": 8 * stored / max(weights, 1),
        "tied": plan.facts.tied and not plan.untied,
        "dtype": str(plan.dtype).removeprefix("torch."),
        "notes": list(_notes(checkpoint, plan, params)),
    }
    return ExportResult(path, size_of(path), 8 * stored / max(weights, 1), details)


def _stored(matrices: list[Matrix]) -> Iterator[tuple[str, int, int]]:
    """Type, weights and bytes of every matrix of the folder."""
    for matrix in matrices:
        if matrix.rounded:
            yield "16-bit", _weights(matrix), 2 * _weights(matrix)
        for _ in matrix.packed:
            scheme = matrix.scheme
            group = f"groups of {scheme.group_size}" if scheme.group_size else "one scale a row"
            yield f"int{scheme.bits}, {group}", _weights(matrix), packed_bytes(matrix)


def packed_bytes(matrix: Matrix) -> int:
    """Bytes of a matrix's words, scales and shape."""
    (rows, columns), scheme = matrix.shape, matrix.scheme
    return 4 * rows * -(-columns * scheme.bits // 32) + 2 * rows * columns // (scheme.group_size or columns) + 16


def _notes(checkpoint: Checkpoint, plan: CompressedTensorsPlan, params: CompressedTensorsParams) -> Iterator[str]:
    matrices = list(plan.matrices.values())
    yield from _embedding_notes(plan)
    yield from _width_notes(matrices)
    if plan.uneven:
        yield (
            f"vLLM refuses the folder: it joins {plan.uneven[0]}, of which a part is quantized"
            f"{_more(plan.uneven)}; Transformers loads it"
        )
    wide = [name for name, dtype in plan.floats.items() if dtype != plan.dtype]
    if wide:
        yield (
            f"{wide[0]}{_more(wide)}: {params.dtype} does not hold it exactly; stored in its own dtype, which engines "
            "round when they load it"
        )
    quantization = checkpoint.recipe.get("quantization") or {}
    yield _activation_note(quantization.get("activations"), params)
    bits = (quantization.get("kv_cache") or {}).get("bits")
    if bits:
        yield f"the key/value cache was trained in {bits} bits, which the format cannot say; engines keep it in 16"


def _embedding_notes(plan: CompressedTensorsPlan) -> Iterator[str]:
    for matrix in plan.matrices.values():
        packed, wide = packed_bytes(matrix) / 1e6, 2 * _weights(matrix) / 1e6
        if matrix.rounded:
            yield (
                f"the embedding is kept at 16 bit, {wide:.3g} MB; embedding=int4 stores it in {packed:.3g} MB, which "
                "Transformers 5.23 does not load"
            )
        if any(module != matrix.module for module in matrix.packed):
            yield (
                f"the tied head is stored by itself, packed, in {packed:.3g} MB, and config.json says "
                "tie_word_embeddings: false"
                + (f"; untie=false computes logits with the {wide:.3g} MB of the embedding" if matrix.rounded else "")
            )
        if matrix.role.kind == "embedding" and not matrix.rounded:
            yield "the embedding is packed: vLLM looks it up by a kernel for GPUs, which was not tried"


def _width_notes(matrices: list[Matrix]) -> Iterator[str]:
    packed = [matrix for matrix in matrices if matrix.packed]
    widened = [matrix for matrix in packed if matrix.nominal_bits < 2 and matrix.scheme.bits > 2]
    if widened:
        yield f"{len(widened)} ternary matrices are stored at {widened[0].scheme.bits} bits ({widened[0].module})"
    unfit = [matrix for matrix in packed if matrix.scheme.bits != 4 or any(n % _CPU_MULTIPLE for n in matrix.shape)]
    if unfit:
        yield (
            f"vLLM's kernel for CPUs takes 4 bits and sizes that are multiples of {_CPU_MULTIPLE}: not "
            f"{unfit[0].module}{_more(unfit)}"
        )
    odd = [matrix for matrix in packed if matrix.scheme.group_size not in _GPU_GROUPS]
    if odd:
        yield (
            f"vLLM's kernels for GPUs take groups of 32, 64, 128 or a whole row: not {odd[0].module}{_more(odd)}, "
            f"groups of {odd[0].scheme.group_size}"
        )


def _activation_note(trained: Any, params: CompressedTensorsParams) -> str:
    if not trained:
        return "activations were trained unquantized; engines compute with 16-bit ones"
    if not per_token(trained):
        group = trained.get("group_size") or "a whole row"
        return (
            f"activations were trained in {trained.get('bits')} bits, groups of {group}, which the format cannot say; "
            "engines compute with 16-bit ones"
        )
    if params.activations == "none":
        return "activations were trained in 8 bits; engines compute with 16-bit ones, as activations=none asks"
    return (
        "activations are declared as int8 with a scale a token, as trained; engines divide by 127.5, not by 127. vLLM "
        "has no kernel for them on CPUs: there, export with activations=none"
    )


def _weights(matrix: Matrix) -> int:
    return matrix.shape[0] * matrix.shape[1]


def _more(names: Any) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
