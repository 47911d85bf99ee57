"""Writing the file: header by the `gguf` package, then one tensor after the other."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgerazor.core.contracts import Checkpoint
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.errors import ExportError
from edgerazor.plugins.exporters.gguf.header import write_header
from edgerazor.plugins.exporters.gguf.plan import Entry, GGUFPlan

_ALIGNMENT = 32
_CHUNK = 1 << 22
_F32_ID = 0


def write_gguf(
    path: Path,
    architecture: str,
    metadata: Mapping[str, Any],
    plan: GGUFPlan,
    checkpoint: Checkpoint,
    on_tensor: Callable[[int, int], None],
) -> None:
    """Write keys and tensors to `path`; one tensor is in memory at a time."""
    entries = plan.entries
    tensors = [(entry.name, entry.facts.shape, entry.bytes, entry.type_id) for entry in entries]
    tensors += [(name, values.shape, values.nbytes, _F32_ID) for name, values in plan.constants.items()]
    write_header(path, architecture, metadata, tensors)
    with path.open("ab") as file:
        for index, entry in enumerate(entries):
            file.write(bytes(-file.tell() % _ALIGNMENT))
            before = file.tell()
            for part in _stored(entry, checkpoint.read(entry.facts.name)):
                file.write(np.ascontiguousarray(part).data)
            if file.tell() - before != entry.bytes:
                raise ExportError(f"{entry.facts.name}: changed while it was exported")
            on_tensor(index + 1, len(entries))
        for values in plan.constants.values():
            file.write(bytes(-file.tell() % _ALIGNMENT))
            file.write(values.astype("<f4").tobytes())
        file.write(bytes(-file.tell() % _ALIGNMENT))


def interleave_rows(rows: int, heads: int) -> NDArray[np.intp]:
    """Order of rows for arch `llama`: in each head of width h, new row 2k + e is old row e * h / 2 + k."""
    return np.arange(rows).reshape(heads, 2, -1).swapaxes(1, 2).reshape(-1)


def _stored(entry: Entry, value: Tensor | QuantizedTensor) -> Iterator[NDArray[Any]]:
    """The bytes of a tensor, some rows at a time."""
    rows = entry.facts.shape[0]
    order = entry.first + (interleave_rows(rows, entry.heads) if entry.heads else np.arange(rows))
    if isinstance(value, QuantizedTensor):
        codes, scale, packer = value.codes.numpy(), value.scale.to(torch.float16).numpy(), entry.block_type
        if packer is None:
            raise ExportError(f"{entry.facts.name}: changed while it was exported")
        step = max(1, _CHUNK // codes.shape[1])
        for start in range(0, rows, step):
            chosen = order[start : start + step]
            yield packer.pack(codes[chosen], scale[chosen])
    else:
        yield _float_bytes(value.float() + entry.offset if entry.offset else value, entry.type_name)[order]


def _float_bytes(tensor: Tensor, type_name: str) -> NDArray[Any]:
    if type_name == "BF16":
        return tensor.contiguous().view(torch.int16).numpy().astype("<i2", copy=False)
    if type_name == "F16":
        return tensor.contiguous().numpy().astype("<f2", copy=False)
    return tensor.to(torch.float32).contiguous().numpy().astype("<f4", copy=False)
