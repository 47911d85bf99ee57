"""Writing the folder, a tensor at a time."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgerazor.core.contracts import Checkpoint
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import ExportError
from edgerazor.plugins.exporters.common import write_json
from edgerazor.plugins.exporters.hugging_face import ShardWriter, describe_card, write_companions
from edgerazor.plugins.exporters.mlx.plan import Matrix, MLXPlan
from edgerazor.plugins.exporters.params import MLXParams

CARD = "edgerazor_mlx.json"
_CODES_AT_ONCE = 1 << 22


def write_folder(
    folder: Path, checkpoint: Checkpoint, plan: MLXPlan, params: MLXParams, on_tensor: Callable[[int, int], None]
) -> None:
    """Make the folder: tensors, configuration, tokenizer, and the card that says what made it."""
    folder.mkdir()
    names = sorted([*plan.matrices, *plan.floats])
    with ShardWriter(folder, checkpoint) as shards:
        for index, name in enumerate(names):
            value, matrix = checkpoint.read(name), plan.matrices.get(name)
            if (matrix is not None) != isinstance(value, QuantizedTensor):
                raise ExportError(f"{name}: changed while it was exported")
            if isinstance(value, QuantizedTensor) and matrix is not None:
                shards.add(affine_tensors(matrix, value, plan.dtype))
            elif isinstance(value, Tensor):
                shards.add({name: value.to(plan.dtype)})
            on_tensor(index + 1, len(names))
    write_companions(folder, checkpoint, plan.config)
    write_json(folder / CARD, describe_card(checkpoint, params))


def affine_tensors(matrix: Matrix, value: QuantizedTensor, dtype: torch.dtype) -> dict[str, Tensor]:
    """`weight` uint32, `scales` and `biases` of a matrix, by their names in the file."""
    affine, codes = matrix.affine, value.codes.numpy()
    step = max(1, _CODES_AT_ONCE // codes.shape[1])
    words = [affine.words(codes[start : start + step]) for start in range(0, len(codes), step)]
    scales = affine.scales(value.scale.numpy())
    return {
        f"{matrix.module}.weight": torch.from_numpy(np.concatenate(words)),
        f"{matrix.module}.scales": torch.from_numpy(scales).to(dtype),
        f"{matrix.module}.biases": torch.from_numpy(scales * np.float32(-affine.offset)).to(dtype),
    }
