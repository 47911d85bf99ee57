"""An exported folder in ONNX Runtime, with a key/value buffer that every step appends to in place."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgerazor.errors import ExportError, first_line, install_hint
from edgerazor.plugins.exporters.common import read_json
from edgerazor.plugins.exporters.folder_runtime import FolderRuntime
from edgerazor.plugins.exporters.onnx.folder import CARD, GENAI, MODEL, read_card
from edgerazor.plugins.exporters.token_ids import stop_ids

try:
    import onnxruntime
except ModuleNotFoundError as error:
    if error.name != "onnxruntime":
        raise
    raise ImportError(f"onnxruntime is not installed: {install_hint('onnx')}") from error

_FIRST_CAPACITY = 256


class OnnxRuntime(FolderRuntime):
    """A folder that the exporter `onnx` wrote.

    Args:
        path: of the folder.
        threads: None lets ONNX Runtime choose.

    Raises:
        ExportError: the folder is incomplete, or this ONNX Runtime cannot load the graph.
    """

    def __init__(self, path: str | Path, *, threads: int | None = None):
        self.path, self.name = Path(path), str(path)
        self.engine = engine_name()
        card = read_card(self.path)
        self.recipe: Mapping[str, Any] = card.get("recipe") or {}
        settings = read_json(self.path / GENAI)
        try:
            model, decoder = settings["model"], settings["model"]["decoder"]
            self.vocabulary_size, self.context_length = int(model["vocab_size"]), int(model["context_length"])
            self._layers = int(decoder["num_hidden_layers"])
            self._heads, self._width = int(decoder["num_key_value_heads"]), int(decoder["head_size"])
            self._shared = bool(settings["search"]["past_present_share_buffer"])
            level = int(card["settings"]["accuracy_level"])
            self._last_only = card["settings"]["logits"] == "last"
        except (KeyError, TypeError, ValueError) as error:
            raise ExportError(f"{self.path}: {GENAI} or {CARD} is not as edgerazor writes it: {error!r}") from error
        self.stop_ids = frozenset(stop_ids(self.path, self.vocabulary_size))
        self._session = open_session(self.path / MODEL, threads, level)
        self._names = [f"{layer}.{part}" for layer in range(self._layers) for part in ("key", "value")]
        self._cache = self._buffers(min(_FIRST_CAPACITY, self.context_length))

    def compute(self, ids: Sequence[int], *, every: bool) -> NDArray[np.float32]:
        """float32 logits, by one run of the graph."""
        if every and self._last_only and len(ids) > 1:
            raise ExportError(f"{self.path}: was exported with logits=last; export it with logits=all to score texts")
        inputs = {
            "input_ids": np.array([list(ids)], dtype=np.int64),
            "attention_mask": np.ones((1, self.position + len(ids)), dtype=np.int64),
        }
        try:
            logits = self._in_place(inputs) if self._shared else self._growing(inputs)
        except Exception as error:  # its exceptions have no base class but this one
            raise ExportError(f"{self.path}: {first_line(error)}") from error
        return logits if every else logits[-1:]

    def _in_place(self, inputs: dict[str, Any]) -> NDArray[np.float32]:
        """Past and present are the same buffers, in which the operator writes the new positions."""
        self._make_room(inputs["attention_mask"].shape[1])
        binding = self._session.io_binding()
        for name, array in inputs.items():
            binding.bind_cpu_input(name, array)
        for name, buffer in zip(self._names, self._cache, strict=True):
            binding.bind_ortvalue_input(f"past_key_values.{name}", buffer)
            binding.bind_ortvalue_output(f"present.{name}", buffer)
        binding.bind_output("logits")
        self._session.run_with_iobinding(binding)
        logits: NDArray[np.float32] = binding.get_outputs()[-1].numpy()[0]
        return logits

    def _growing(self, inputs: dict[str, Any]) -> NDArray[np.float32]:
        """Of a portable file: every step returns a longer cache."""
        past = self._cache if self.position else self._buffers(0)
        given = {f"past_key_values.{name}": buffer for name, buffer in zip(self._names, past, strict=True)}
        values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in inputs.items()}
        wanted = ["logits", *(f"present.{name}" for name in self._names)]
        logits, *self._cache = self._session.run_with_ort_values(wanted, values | given)
        found: NDArray[np.float32] = logits.numpy()[0]
        return found

    def rewind(self, position: int) -> bool:
        """What lies behind the position in the buffers is written over; a growing cache has no such place."""
        if not self._shared:
            return False
        self.position = position
        return True

    def close(self) -> None:
        """Drop session and buffers."""
        self._session, self._cache = None, []

    def _make_room(self, total: int) -> None:
        capacity = self._cache[0].shape()[2]
        if total <= capacity:
            return
        while capacity < total:
            capacity = min(2 * capacity, self.context_length)
        self._cache = self._buffers(capacity, self._cache)

    def _buffers(self, capacity: int, earlier: Sequence[Any] = ()) -> list[Any]:
        """Keys and values of every layer, `[1, heads, capacity, width]`, with what was there before."""
        buffers = []
        for index in range(2 * self._layers):
            content = np.zeros((1, self._heads, capacity, self._width), dtype=np.float32)
            if earlier:
                content[:, :, : self.position] = earlier[index].numpy()[:, :, : self.position]
            buffers.append(onnxruntime.OrtValue.ortvalue_from_numpy(content))
        return buffers


def engine_name() -> str:
    """Name and version."""
    return f"ONNX Runtime {onnxruntime.__version__}"


def open_session(path: Path, threads: int | None, accuracy_level: int) -> Any:
    """A session of a graph.

    Args:
        path: of the file.
        threads: None lets ONNX Runtime choose.
        accuracy_level: of the products that it makes of a portable file.

    Raises:
        ExportError: there is no such file, or this ONNX Runtime cannot load it.
    """
    if not path.is_file():
        raise ExportError(f"{path}: there is no such file")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # For products that ONNX Runtime makes of DequantizeLinear and MatMul; others say it themselves.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", str(accuracy_level))
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ExportError(
            f"{path}: ONNX Runtime {onnxruntime.__version__} cannot load it: {first_line(error)}; "
            "2-bit operands need 1.24 or newer"
        ) from error
