"""What a reader of a foreign format gives, and which reader a folder is for."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from edgerazor.core.json_files import read_json
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.core.tensor_files import Header, open_tensors, read_headers, weight_files
from edgerazor.errors import CheckpointError
from edgerazor.schemas.base import nearest

CONFIG = "config.json"


class Reader(Protocol):
    """The quantized matrices of a folder.

    Attributes:
        kind: of the format, for people.
        consumed: names of tensors that `read` makes matrices from.
        activations: a recipe's quantizer of activations; None where they are 16 bit.
        notes: what the result does not keep, one line each.
    """

    kind: str
    consumed: frozenset[str]
    activations: dict[str, Any] | None
    notes: tuple[str, ...]

    def modules(self) -> list[str]:
        """Names of the modules whose weight is quantized, sorted."""

    def read(self, module: str) -> QuantizedTensor:
        """Codes and scales of one module.

        Raises:
            CheckpointError: they are damaged, or no packed checkpoint can hold them exactly; the tensor is named.
        """


class Folder:
    """A folder of safetensors files and its config.json.

    Raises:
        CheckpointError: either is missing or damaged.
    """

    def __init__(self, path: Path):
        self.path = path
        self.config: dict[str, Any] = read_json(path / CONFIG)
        self.headers: Mapping[str, Header] = read_headers(weight_files(path))

    def read(self, name: str) -> Any:
        """A tensor.

        Raises:
            CheckpointError: it is missing or its bytes cannot be read.
        """
        header = self.headers.get(name)
        if header is None:
            near = nearest(name, self.headers)
            raise CheckpointError(f"{self.path}: {name}: is missing{near}")
        with open_tensors(header.file) as opened:
            return opened.get_tensor(name)


def open_reader(folder: Folder, unquantized: tuple[str, ...]) -> Reader:
    """The reader for what config.json says; without a word about quantization, values that lie on a grid.

    Raises:
        CheckpointError: the format is none of those that can be read.
    """
    from edgerazor.importers.compressed_tensors import PackQuantized
    from edgerazor.importers.fake_quantized import FakeQuantized
    from edgerazor.importers.gptq import GPTQ

    section = folder.config.get("quantization_config")
    if section is None:
        return FakeQuantized(folder, unquantized)
    method = section.get("quant_method") if isinstance(section, dict) else section
    readers: dict[Any, Callable[[Folder, Any], Reader]] = {"compressed-tensors": PackQuantized, "gptq": GPTQ}
    if method == "edgerazor":
        raise CheckpointError(f"{folder.path}: is a checkpoint of edgerazor already; there is nothing to import")
    if method not in readers:
        raise CheckpointError(
            f"{folder.path / CONFIG}: quantization_config.quant_method: is {method!r}; what can be imported are "
            f"{' and '.join(readers)}, and 16-bit files whose weights lie on a grid"
        )
    if unquantized:
        raise CheckpointError(
            f"{folder.path}: {method} files say themselves what is quantized; leave --unquantized out"
        )
    return readers[method](folder, section)
