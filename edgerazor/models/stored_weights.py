"""A model whose weights stay in its files: modules without memory, and one parameter at a time read into its place."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor, nn

from edgerazor.core.tensor_files import open_tensors, read_headers, weight_files
from edgerazor.errors import CheckpointError
from edgerazor.models.finite import check_finite


class StoredWeights:
    """Reads parameters of a model on the meta device from the safetensors files of its folder.

    Args:
        model: on the meta device, as transformers loads it there: its parameters have the dtype they would be given.
        folder: of the files.
    """

    def __init__(self, model: nn.Module, folder: Path):
        self.model, self.folder = model, folder
        self._headers = read_headers(weight_files(folder))

    @classmethod
    def found(cls, model: Any, folder: Path) -> "StoredWeights | None":
        """The weights of a model, or None where the files do not hold each parameter as it is in the model.

        Some families hold experts apart, or under other names, and transformers converts them while it loads.
        """
        persistent = model.state_dict().keys() & {name for name, _ in model.named_buffers()}
        if getattr(model, "_weight_conversions", None) != [] or persistent:
            return None
        with suppress(CheckpointError, OSError, SafetensorError):
            weights = cls(model, folder)
            stored = {name: header.shape for name, header in weights._headers.items()}
            if all(stored.get(name) == tuple(value.shape) for name, value in model.named_parameters()):
                return weights
        return None

    def read(self, name: str) -> Tensor:
        """One parameter, in its dtype.

        Raises:
            CheckpointError: it cannot be read, or holds NaN or infinity.
        """
        try:
            with open_tensors(self._headers[name].file) as opened:
                tensor: Tensor = opened.get_tensor(name).to(self.model.get_parameter(name).dtype)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{self._headers[name].file}: {name}: cannot be read: {error}") from error
        check_finite(tensor, f"{self.folder}: {name}")
        return tensor

    @contextmanager
    def present(self, name: str) -> Iterator[None]:
        """For the block the parameter is in the model with its values."""
        owner, _, leaf = name.rpartition(".")
        parameters = self.model.get_submodule(owner)._parameters
        absent = parameters[leaf]
        parameters[leaf] = nn.Parameter(self.read(name), requires_grad=False)
        try:
            yield
        finally:
            parameters[leaf] = absent
