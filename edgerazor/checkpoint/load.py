"""Loading a packed checkpoint, checked first."""

from pathlib import Path
from typing import Any, get_args

import torch
from transformers import AutoConfig

from edgerazor.checkpoint.file_check import FileCheck, check_small_files
from edgerazor.checkpoint.hugging_face import register
from edgerazor.checkpoint.read import PackedCheckpoint, open_checkpoint
from edgerazor.core.discovery import load_plugins
from edgerazor.core.layers.packed import Compute, PackedWeight
from edgerazor.core.layers.table import LAYER_KINDS
from edgerazor.core.registry import Registry
from edgerazor.errors import CheckpointError
from edgerazor.models.types import auto_class


def load_model(
    folder: str | Path,
    *,
    dtype: str | torch.dtype | None = None,
    dequantize: bool = False,
    compute: Compute = "cached",
    activations: bool = True,
    device_map: Any = None,
    registry: Registry | None = None,
    verify: bool = True,
) -> Any:
    """Load a packed checkpoint as a transformers model: `AutoModelForCausalLM.from_pretrained` after a full check.

    Args:
        folder: written by `write_checkpoint` or `pack_model`.
        dtype: of everything that is not codes or scales; None is the dtype the student computed in.
        dequantize: give an ordinary float model: linear layers and embeddings with the dequantized values; inputs,
            keys and values are not quantized.
        compute: "cached" dequantizes every matrix once (speed and memory of a 16-bit model), "packed" at every call
            (small and slow).
        activations: False leaves the inputs of linear layers unquantized; keys and values stay as trained.
        device_map: as in transformers.
        registry: loaded plugins, which the model's quantizers are built from; None loads them.
        verify: compare every file but the card with its digest, beside the loading; False loads files as they are.

    Raises:
        CheckpointError: the folder is not a complete packed checkpoint of a known version; names file and key;
            or a file is not the one that was written.
    """
    if compute not in get_args(Compute):
        raise CheckpointError(f"compute: is {compute!r}, expected one of {', '.join(get_args(Compute))}")
    registry = registry or load_plugins()
    checkpoint = open_checkpoint(folder, registry=registry)
    register(registry)
    try:
        model = _load(checkpoint, verify, dtype=dtype or "auto", device_map=device_map)
    except (OSError, RuntimeError, ValueError) as error:
        if verify:
            FileCheck(checkpoint.folder, checkpoint.manifest).finish()
        raise CheckpointError(f"{folder}: cannot be loaded: {error}") from error
    if dequantize:
        return model.dequantize()
    for module in model.modules():
        if isinstance(module, PackedWeight):
            module.compute = compute
        if not activations:
            for kind in LAYER_KINDS:
                kind.leave_inputs(module)
    return model


def _load(checkpoint: PackedCheckpoint, verify: bool, **options: Any) -> Any:
    if verify:
        check_small_files(checkpoint.folder, checkpoint.manifest)
    content = {**checkpoint.config}
    # A dict until transformers makes an `EdgeRazorConfig` of it, and out of the way until then.
    section = content.pop("quantization_config") | {"verify": verify, "registry": checkpoint.registry}
    config = AutoConfig.for_model(**content)
    config.quantization_config = section
    return auto_class(config).from_pretrained(checkpoint.folder, config=config, **options)
