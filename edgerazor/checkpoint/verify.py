"""Checking a packed checkpoint to the last byte: every fault is listed, by file or tensor name."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgerazor.checkpoint.hugging_face import register
from edgerazor.checkpoint.load import load_model
from edgerazor.checkpoint.manifest import Manifest, manifest_fault, read_manifest
from edgerazor.checkpoint.read import PackedCheckpoint, check_header
from edgerazor.checkpoint.section import CONFIG, MANIFEST, PackedSection, read_section
from edgerazor.checkpoint.swap import swap_in_packed
from edgerazor.core.discovery import load_plugins
from edgerazor.core.json_files import read_json
from edgerazor.core.layers.table import LAYER_KINDS
from edgerazor.core.packing import Tensors, content_digest, unpack, unpack_bits, unpack_t5
from edgerazor.core.registry import Registry
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.core.tensor_files import Header
from edgerazor.errors import CheckpointError
from edgerazor.kernels.reference import SMALLEST_SCALE
from edgerazor.models.types import auto_class, classifies_images, vocabulary_size

_FLOATS = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
_LARGEST_T5 = 242


@dataclass(frozen=True)
class VerifyResult:
    """What a verification found.

    Attributes:
        folder: the checkpoint.
        faults: one line per fault, the file or tensor first; empty if the checkpoint is sound.
        tensors: how many were read.
        bytes: of all files.
        bits_per_weight: bytes of packed tensors in bits per quantized weight; 0 if they could not be read.
        digest: content_sha256.
        mode: "packed".
    """

    folder: Path
    faults: tuple[str, ...]
    tensors: int = 0
    bytes: int = 0
    bits_per_weight: float = 0.0
    digest: str = ""
    mode: str = "packed"

    @property
    def ok(self) -> bool:
        return not self.faults

    def raise_if_damaged(self) -> "VerifyResult":
        """Raise CheckpointError with every fault, or return self."""
        if self.faults:
            raise CheckpointError("\n".join(f"{self.folder}: {fault}" for fault in self.faults))
        return self


def verify_checkpoint(folder: str | Path, *, logits: bool = False, registry: Registry | None = None) -> VerifyResult:
    """Read a packed checkpoint whole and compare it with what it says about itself.

    Args:
        folder: the checkpoint.
        logits: also load it twice and compare the logits of the packed with those of the dequantized model.
        registry: loaded plugins; None loads them.

    Returns:
        All faults: hashes, missing or stray tensors, shapes and dtypes, bytes that no code has, codes out of range,
        padding that is not zero, scales that are not finite or too small, the content digest.

    Raises:
        CheckpointError: there is no such folder.
    """
    folder, registry = Path(folder), registry or load_plugins()
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: there is no such folder")
    faults: list[str] = []
    try:
        manifest = read_manifest(folder)
    except CheckpointError as error:
        return VerifyResult(folder, (str(error),))
    faults += _file_faults(folder, manifest)
    try:
        config = read_json(folder / CONFIG)
        section = read_section(config.get("quantization_config"), CONFIG)
        if not isinstance(section, PackedSection):
            raise CheckpointError(f"{CONFIG}: quantization_config.mode: is '{section.mode}', expected 'packed'")
        checkpoint = PackedCheckpoint(folder, config, section, manifest, registry)
        shape_faults = _shape_faults(checkpoint)
    except CheckpointError as error:
        return VerifyResult(folder, (*faults, str(error)))
    faults += shape_faults
    damaged = {fault.partition(":")[0] for fault in shape_faults}
    content, digest, bits = _content_faults(checkpoint, damaged)
    faults += content
    if manifest.content_sha256 != section.content_sha256:
        faults.append(f"{MANIFEST}: content_sha256 differs from config.json")
    if manifest.unquantized_dtype != section.unquantized_dtype:
        faults.append(f"{MANIFEST}: unquantized_dtype differs from config.json")
    if logits and not faults:
        faults += _logit_faults(folder, registry)
    size = sum(entry.bytes for entry in manifest.files.values())
    return VerifyResult(folder, tuple(faults), len(checkpoint.headers), size, bits, digest)


def _file_faults(folder: Path, manifest: Manifest) -> Iterator[str]:
    for name, entry in manifest.files.items():
        if fault := manifest_fault(folder / name, entry, compare="all"):
            yield f"{name}: {fault}"
    for path in sorted(folder.glob("*.safetensors")):
        if path.name not in manifest.files:
            yield f"{path.name}: is not listed in {MANIFEST}"


def _shape_faults(checkpoint: PackedCheckpoint) -> list[str]:
    """Compare names, shapes and dtypes with those of the model that config.json describes."""
    faults = []
    expected = _expected(checkpoint)
    for name, tensor in expected.items():
        header = checkpoint.headers.get(name)
        if tensor.dtype in _FLOATS and not name.endswith(".weight_scale"):
            if header is not None and header.dtype not in _FLOATS:
                faults.append(f"{name}: is {header.describe()}, expected a float {list(tensor.shape)}")
                continue
            header = header and Header(header.file, header.shape, tensor.dtype)
        faults += check_header(name, header, tuple(tensor.shape), tensor.dtype)
    guard, headers = checkpoint.section.guard, checkpoint.headers
    faults += check_header(guard, headers.get(guard), (1,), torch.uint8)
    stray = sorted(set(headers) - set(expected) - {guard})
    return faults + [f"{name}: is no tensor of this model ({headers[name].describe()})" for name in stray]


def _expected(checkpoint: PackedCheckpoint) -> dict[str, Tensor]:
    """Tensors of the packed model by name, on the meta device."""
    register(checkpoint.registry)
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(checkpoint.folder)
        del config.quantization_config
        with torch.device("meta"):
            model: Any = auto_class(config).from_config(config)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{CONFIG}: describes no model that transformers can build: {error}") from error
    swap_in_packed(model, checkpoint.section, input_quantizer=None)
    tied = set(model.all_tied_weights_keys)
    return {name: tensor for name, tensor in model.state_dict().items() if name not in tied}


def _content_faults(checkpoint: PackedCheckpoint, damaged: set[str]) -> tuple[list[str], str, float]:
    faults: list[str] = []
    stored = weights = 0
    whole = not any(name.rpartition(".")[0] in checkpoint.section.modules for name in damaged)

    def stream() -> Iterator[tuple[str, QuantizedTensor]]:
        nonlocal stored, weights
        for module in sorted(checkpoint.section.modules):
            if any(name in damaged for name in checkpoint.expected(module)):
                continue
            tensors, layout = checkpoint.packed_tensors(module), checkpoint.section.layout(module)
            columns = tensors["weight_scale"].shape[1] * layout.group_size
            problems = [f"{module}.{line}" for line in _packed_faults(tensors, layout.wide_rows, columns)]
            stored += sum(tensor.numel() * tensor.itemsize for tensor in tensors.values())
            weights += tensors["weight_scale"].shape[0] * columns
            if not problems:
                quantized = unpack(layout, tensors, columns)
                problems = [f"{module}.{line}" for line in _range_faults(quantized)]
                yield module, quantized
            faults.extend(problems)

    digest = content_digest(stream())
    for name in sorted(set(checkpoint.headers) - damaged):
        plain = checkpoint.headers[name].dtype in _FLOATS and not name.endswith(".weight_scale")
        if plain and not bool(torch.isfinite(checkpoint.load(name)).all()):
            faults.append(f"{name}: holds NaN or infinite values")
    if whole and not faults and digest != checkpoint.digest:
        faults.append(f"{CONFIG}: content_sha256 is {checkpoint.digest}, the tensors give {digest}")
    return faults, checkpoint.digest, 8 * stored / max(weights, 1)


def _packed_faults(tensors: Tensors, wide_rows: int, columns: int) -> Iterator[str]:
    """Faults of the stored bytes of one module; each line starts with the tensor's suffix."""
    scale = tensors["weight_scale"].float()
    if not bool(torch.isfinite(scale).all()):
        yield "weight_scale: holds NaN or infinite scales"
    elif bool(((scale != 0) & (scale.abs() < SMALLEST_SCALE)).any()):
        yield "weight_scale: holds scales below 2^-14"
    if "weight_t5" in tensors:
        packed = tensors["weight_t5"]
        if wrong := int((packed > _LARGEST_T5).sum()):
            yield f"weight_t5: {wrong} bytes are above {_LARGEST_T5}, which no five codes give"
        elif columns % 5 and bool(unpack_t5(packed[:, -1:], 5)[:, columns % 5 :].any()):
            yield f"weight_t5: codes after column {columns} are not 0"
    if "weight_i4" in tensors and columns % 2 and bool((tensors["weight_i4"][:, -1] >> 4 != 8).any()):
        yield f"weight_i4: the code after column {columns} is not 0"
    if "weight_rows" in tensors:
        rows = scale.shape[0]
        bits = unpack_bits(tensors["weight_rows"], 8 * tensors["weight_rows"].shape[0])
        if bool(bits[rows:].any()):
            yield f"weight_rows: bits after row {rows} are set"
        elif int(bits.sum()) != wide_rows:
            yield f"weight_rows: marks {int(bits.sum())} rows, config.json says {wide_rows}"


def _range_faults(quantized: QuantizedTensor) -> Iterator[str]:
    limit = quantized.qmax.to(torch.int16).unsqueeze(-1)
    codes = quantized.codes.to(torch.int16)
    outside = (codes > limit) | (codes < -limit - 1)
    if bool(outside.any()):
        yield f"weight: {int(outside.sum())} codes are outside -qmax-1..qmax"
    ternary = (quantized.qmax == 1).reshape(len(codes), -1)
    if quantized.symmetric and bool(((quantized.scale < 0) & ternary).any()):
        yield "weight_scale: holds negative scales of ternary codes"


def _logit_faults(folder: Path, registry: Registry) -> Iterator[str]:
    """Packed against dequantized; what is simulated around the weights is switched off in both."""
    from edgerazor.core.layers.attention import remove_kv_quantizer

    packed = load_model(folder, compute="packed", activations=False, verify=False, registry=registry)
    plain = load_model(folder, dequantize=True, verify=False, registry=registry)
    remove_kv_quantizer(packed)
    for kind in LAYER_KINDS:
        kind.add_up_alike(packed, plain)
    inputs = _inputs(packed.config, registry)
    with torch.no_grad():
        difference = (packed(**inputs).logits - plain(**inputs).logits).abs().max()
    if float(difference) != 0:
        yield f"logits: of the packed and the dequantized model differ by {float(difference)}"


def _inputs(config: Any, registry: Registry) -> dict[str, Tensor]:
    """Some tokens, or two pictures of numbers."""
    image = registry.adapter_for(config.model_type).facts(config).image if classifies_images(config) else None
    if image is None:
        return {"input_ids": torch.arange(16).remainder(vocabulary_size(config)).unsqueeze(0)}
    numbers = torch.arange(2 * image.channels * image.height * image.width, dtype=torch.float32)
    return {"pixel_values": numbers.sin().view(2, image.channels, image.height, image.width)}
