"""An exported folder in plain Transformers, which asks the package compressed-tensors to unpack it."""

import io
import logging
from contextlib import redirect_stderr
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, __version__
from transformers.utils import logging as transformers_logging

from edgerazor.errors import ExportError, PluginError, first_line, install_hint
from edgerazor.models.transformers_runtime import TransformersRuntime
from edgerazor.plugins.exporters.common import read_json
from edgerazor.plugins.exporters.folder_runtime import FolderRuntime
from edgerazor.plugins.exporters.params import CompressedTensorsParams
from edgerazor.plugins.exporters.token_ids import stop_ids

try:
    import compressed_tensors
except ModuleNotFoundError as error:
    if error.name != "compressed_tensors":
        raise
    raise ImportError(f"compressed-tensors is not installed: {install_hint('compressed-tensors')}") from error


class CompressedTensorsRuntime(FolderRuntime, TransformersRuntime):
    """A folder that the exporter `compressed-tensors` wrote.

    Args:
        path: of the folder.

    Raises:
        ExportError: the folder is incomplete or damaged.
        PluginError: this Transformers cannot load folders of its kind.
    """

    def __init__(self, path: str | Path):
        path = Path(path)
        card = read_json(path / CompressedTensorsParams.marker)
        try:
            super().__init__(_load(path), None, card.get("recipe"))
        except Exception as error:  # a damaged folder may raise anything in there
            if "'Embedding' object has no attribute 'weight'" in str(error):
                raise PluginError(f"Transformers {__version__} cannot load a packed embedding") from error
            raise ExportError(f"{path}: Transformers cannot load it: {first_line(error)}") from error
        self.path, self.name = path, str(path)
        self.stop_ids = frozenset(stop_ids(path, self.vocabulary_size))
        self.engine += f" with compressed-tensors {compressed_tensors.__version__}"


@torch.no_grad()
def _load(path: Path) -> torch.nn.Module:
    """The model with its matrices decompressed, which compressed-tensors does at the first call; without bars."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()):
            model: torch.nn.Module
            model, loaded = AutoModelForCausalLM.from_pretrained(
                path, dtype="auto", local_files_only=True, output_loading_info=True
            )
            if missing := sorted(loaded["missing_keys"]):
                raise ExportError(f"tensors are missing: {', '.join(missing[:5])} ({len(missing)} in all)")
            model(input_ids=torch.zeros(1, 1, dtype=torch.long))
    finally:
        transformers_logging.set_verbosity(level)
    return model
