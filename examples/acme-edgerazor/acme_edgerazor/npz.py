"""A packed checkpoint as a .npz file: an archive of plain arrays, written and read one by one."""

import zipfile

import numpy as np
import torch

from edgerazor import QuantizedTensor
from edgerazor.core.contracts import ComparisonResult, Exporter, ExportPlan
from edgerazor.errors import ExportError
from edgerazor.plugins.exporters.common import DIGEST, describe_origin

# What numpy knows under another name, or not at all: bfloat16 is kept as its bits.
STORED_AS = {
    torch.bfloat16: (torch.uint16, "bfloat16_bits"),
    torch.float16: (torch.float16, "float16"),
    torch.float32: (torch.float32, "float32"),
    torch.float64: (torch.float64, "float64"),
}


class NPZ(Exporter):
    """`NAME/codes`, `NAME/scale` and `NAME/qmax` of a matrix, `NAME/DTYPE` of any other tensor."""

    def plan(self, checkpoint, tensors):
        plain = [(name, value.dtype) for name, value in tensors if not isinstance(value, QuantizedTensor)]
        known = ", ".join(map(str, STORED_AS))
        unknown = [f"{name}: is {dtype}; expected {known}" for name, dtype in plain if dtype not in STORED_AS]
        return ExportPlan(problems=unknown)

    def write(self, checkpoint, plan, path):
        with zipfile.ZipFile(path, "x") as archive:
            for key, array in arrays(checkpoint):
                with archive.open(f"{key}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)

    def verify(self, path, checkpoint):
        different = {}
        try:
            with np.load(path, allow_pickle=False) as stored:
                extra = set(stored.files)
                for key, array in arrays(checkpoint):
                    if not (key in extra and stored[key].dtype == array.dtype and np.array_equal(stored[key], array)):
                        different[key.rpartition("/")[0] or key] = None
                    extra.discard(key)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ExportError(f"{path}: cannot be read: {error}") from error
        return ComparisonResult(len(list(checkpoint.names())), (*different, *sorted(extra)))


def arrays(checkpoint):
    """Key and array of everything in the file: where it comes from, then every tensor."""
    yield DIGEST, np.array(describe_origin(checkpoint)[DIGEST])
    for name in checkpoint.names():
        value = checkpoint.read(name)
        if isinstance(value, QuantizedTensor):
            yield from ((f"{name}/{part}", getattr(value, part).numpy()) for part in ("codes", "scale", "qmax"))
        else:
            dtype, label = STORED_AS[value.dtype]
            yield f"{name}/{label}", value.view(dtype).numpy()
