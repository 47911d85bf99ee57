"""Writing a folder, one tensor of the checkpoint in memory at a time."""

from collections.abc import Callable
from pathlib import Path

from edgerazor.core.contracts import Checkpoint
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.plugins.exporters.common import write_json
from edgerazor.plugins.exporters.compressed_tensors.layout import dequantized, packed_tensors
from edgerazor.plugins.exporters.compressed_tensors.plan import CompressedTensorsPlan
from edgerazor.plugins.exporters.hugging_face import SHARD_BYTES, ShardWriter, describe_card, write_companions
from edgerazor.plugins.exporters.params import CompressedTensorsParams


def write_folder(
    folder: Path,
    checkpoint: Checkpoint,
    plan: CompressedTensorsPlan,
    params: CompressedTensorsParams,
    on_tensor: Callable[[int, int], None],
    *,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write safetensors, configuration, tokenizer and card into a new folder.

    Args:
        folder: is made.
        checkpoint: what is written.
        plan: of the checkpoint.
        params: of the exporter, for the card.
        on_tensor: called with the tensors done and all of them.
        shard_bytes: most bytes in a file.
    """
    folder.mkdir()
    names = list(checkpoint.names())
    with ShardWriter(folder, checkpoint, shard_bytes) as shards:
        for index, name in enumerate(names):
            value = checkpoint.read(name)
            if not isinstance(value, QuantizedTensor):
                shards.add({name: value.to(plan.floats[name])})
            else:
                matrix = plan.matrices[name.removesuffix(".weight")]
                if matrix.rounded:
                    shards.add({name: dequantized(value, plan.dtype)})
                tensors = packed_tensors(value, matrix.scheme, plan.dtype) if matrix.packed else {}
                for module in matrix.packed:
                    shards.add({f"{module}.{key}": tensor for key, tensor in tensors.items()})
            on_tensor(index + 1, len(names))
    write_companions(folder, checkpoint, plan.changes())
    write_json(folder / params.marker, describe_card(checkpoint, params))
