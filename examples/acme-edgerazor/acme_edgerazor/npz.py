"""A packed checkpoint as a .npz file: an archive of plain arrays, written and read one by one."""

import secrets
import zipfile
from pathlib import Path

import numpy as np
import torch

from edgerazor import QuantizedTensor
from edgerazor.core.contracts import ExportReport, VerifyReport
from edgerazor.errors import ExportError

DIGEST = "content_sha256"
# What numpy knows under another name, or not at all: bfloat16 is kept as its bits.
STORED_AS = {
    torch.bfloat16: (torch.uint16, "bfloat16_bits"),
    torch.float16: (torch.float16, "float16"),
    torch.float32: (torch.float32, "float32"),
    torch.float64: (torch.float64, "float64"),
}


class NPZ:
    """`NAME/codes`, `NAME/scale` and `NAME/qmax` of a matrix, `NAME/DTYPE` of any other tensor."""

    def __init__(self, params):
        self.params = params

    def check(self, checkpoint):
        problems = [
            f"{name}: is {value.dtype}; a .npz file holds {', '.join(str(dtype) for dtype in STORED_AS)}"
            for name in checkpoint.names()
            if not isinstance(value := checkpoint.read(name), QuantizedTensor) and value.dtype not in STORED_AS
        ]
        if problems:
            raise ExportError("\n".join(problems))

    def export(self, checkpoint, path):
        self.check(checkpoint)
        path = Path(path)
        weights = 0
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            with zipfile.ZipFile(temporary, "x") as archive:
                write(archive, DIGEST, np.array(checkpoint.digest))
                for name in checkpoint.names():
                    value = checkpoint.read(name)
                    weights += value.codes.numel() if isinstance(value, QuantizedTensor) else value.numel()
                    for key, array in arrays(name, value).items():
                        write(archive, key, array)
            temporary.replace(path)
        except OSError as error:
            raise ExportError(f"{path}: cannot be written: {error.strerror}") from error
        finally:
            temporary.unlink(missing_ok=True)
        size = path.stat().st_size
        return ExportReport(path, size, 8 * size / weights)

    def verify(self, path, checkpoint):
        try:
            with np.load(path, allow_pickle=False) as stored:
                different = list(compare(stored, checkpoint))
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ExportError(f"{path}: cannot be read: {error}") from error
        return VerifyReport(sum(1 for _ in checkpoint.names()), tuple(different))


def arrays(name, value):
    """What is stored of a tensor."""
    if isinstance(value, QuantizedTensor):
        return {f"{name}/{part}": getattr(value, part).numpy() for part in ("codes", "scale", "qmax")}
    dtype, label = STORED_AS[value.dtype]
    return {f"{name}/{label}": value.view(dtype).numpy()}


def compare(stored, checkpoint):
    """Names of tensors that differ, are missing, or do not belong to the checkpoint."""
    known = {DIGEST}
    if DIGEST not in stored or str(stored[DIGEST]) != checkpoint.digest:
        yield DIGEST
    for name in checkpoint.names():
        expected = arrays(name, checkpoint.read(name))
        known |= expected.keys()
        if not all(key in stored and same(stored[key], array) for key, array in expected.items()):
            yield name
    yield from sorted(set(stored.files) - known)


def same(found, expected):
    return found.dtype == expected.dtype and np.array_equal(found, expected)


def write(archive, key, array):
    with archive.open(f"{key}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array(file, array, allow_pickle=False)
