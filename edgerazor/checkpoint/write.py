"""Writing a packed checkpoint from a quantization-aware model."""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgerazor.checkpoint.card import model_card
from edgerazor.checkpoint.folder import check_replaceable, replaced_folder
from edgerazor.checkpoint.manifest import BitsPerWeight, Manifest, files_in, hash_file, write_manifest
from edgerazor.checkpoint.section import CONFIG, PackedSection, dtype_name, store_layouts
from edgerazor.checkpoint.storage import (
    PackedModules,
    check_weights,
    pack_modules,
    unquantized_dtype,
    unquantized_tensors,
)
from edgerazor.core.plan import Plan
from edgerazor.core.registry import Registry
from edgerazor.core.resolved_recipe import resolve_recipe
from edgerazor.core.tensor_files import WEIGHTS
from edgerazor.core.tensor_spool import TensorSpool
from edgerazor.errors import CheckpointError
from edgerazor.models.special_tokens import settle_special_tokens
from edgerazor.models.stored_weights import StoredWeights
from edgerazor.models.types import classifies_images
from edgerazor.schemas.recipe import Recipe


@dataclass(frozen=True)
class PackResult:
    """What was written.

    Attributes:
        folder: the checkpoint.
        files: bytes of every file in it.
        digest: content_sha256 of the quantized content, the same in every format it is exported to.
        parameters, quantized_parameters: a tied weight counted once.
        nominal_bits, effective_bits, file_bits: per quantized weight: codes, codes and scales, bytes in the file.
        compression: 16-bit size over effective bits, as published (METHOD 2.4).
        file_compression: 16-bit size over the bytes of all tensors' file.
        constant_groups: `{module: groups}` of constant magnitude that ternary rows turned to zero or doubled.
        wide_tensors: unquantized tensors that no 16-bit float holds exactly, stored in their own dtype.
        notes: the same in words, one line each.
        seconds: wall clock.
    """

    folder: Path
    files: Mapping[str, int]
    digest: str
    parameters: int
    quantized_parameters: int
    nominal_bits: float
    effective_bits: float
    file_bits: float
    compression: float
    file_compression: float
    constant_groups: Mapping[str, int]
    wide_tensors: tuple[str, ...]
    notes: tuple[str, ...]
    seconds: float = 0.0

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(self.files.values())


def write_checkpoint(
    model: nn.Module,
    folder: str | Path,
    *,
    recipe: Recipe,
    plan: Plan,
    registry: Registry,
    tokenizer: Any = None,
    evaluation: Any = None,
    unquantized: torch.dtype | None = None,
    weights: StoredWeights | None = None,
    beside: Sequence[Path] = (),
) -> PackResult:
    """Pack a quantization-aware model and write it as a folder that transformers loads (TRANSFORMERS 5).

    The codes are `quantizer.quantize(weight)` of the weights as they are in memory, so give the model in the dtype its
    forward pass quantized in. Parameters that stay float are stored exactly; call `round_unquantized_` first where they
    are float32, or they are stored at 32 bits.

    Args:
        model: a transformers model after `apply_plan`, whole and unwrapped; any device.
        folder: free, empty, or a complete checkpoint, which is replaced once the new one is complete.
        recipe: stored resolved, with versions.
        plan: the plan that was applied.
        registry: gives the plugins' versions.
        tokenizer: saved beside the model if given.
        evaluation: figures for the manifest and the card: a mapping or a dataclass.
        unquantized: the 16-bit dtype of the base model; None asks `unquantized_dtype(model.config)`.
        weights: of a model on the meta device, which are read one by one.
        beside: files that are copied into the folder, such as those of a processor.

    Raises:
        CheckpointError: NaN or infinity (tensor named), scales that are not float16, or a folder that cannot be
            written; nothing is left behind then.
    """
    started, folder = time.monotonic(), Path(folder)
    check_replaceable(folder)
    check_weights(model, plan)
    dtype = unquantized or unquantized_dtype(model.config)
    resolved = resolve_recipe(recipe, registry=registry, plan=plan)
    with replaced_folder(folder) as temporary:
        packed = _write_weights(temporary / WEIGHTS, model, plan, dtype, weights)
        section = build_section(packed, plan, resolved, unquantized=dtype)
        packed.notes += settle_special_tokens(model, tokenizer)
        manifest = _manifest(packed, section, recipe, plan, registry, evaluation)
        _save_companions(model, section, tokenizer, temporary, beside)
        _write_card(temporary / "README.md", model, manifest, plan)
        _write_manifest(manifest, temporary)
        sizes = {name: (temporary / name).stat().st_size for name in files_in(temporary)}
    return replace(_result(folder, sizes, manifest, plan, packed), seconds=time.monotonic() - started)


def _write_manifest(manifest: Manifest, folder: Path) -> None:
    files = {name: hash_file(folder / name) for name in files_in(folder)}
    write_manifest(folder, manifest.model_copy(update={"files": files}))


def _write_card(path: Path, model: Any, manifest: Manifest, plan: Plan) -> None:
    text = model_card(manifest, plan, images=classifies_images(model.config))
    path.write_text(text, encoding="utf-8")


def _write_weights(
    path: Path, model: nn.Module, plan: Plan, dtype: torch.dtype, weights: StoredWeights | None
) -> PackedModules:
    """Every tensor of the model, one after the other, and the guard."""
    with TensorSpool(path.parent) as spool:
        packed = pack_modules(model, plan, spool.add, weights)
        packed.wide_tensors = unquantized_tensors(model, packed.layouts, spool.add, dtype=dtype, weights=weights)
        if plan.quantized:
            spool.add({_guard(plan): torch.zeros(1, dtype=torch.uint8)})
        spool.save(path)
    return packed


def _manifest(
    packed: PackedModules,
    section: PackedSection,
    recipe: Recipe,
    plan: Plan,
    registry: Registry,
    evaluation: Any,
) -> Manifest:
    """The manifest before the files are known."""
    return Manifest(
        files={},
        base_model={"name_or_path": recipe.model.name_or_path, "revision": recipe.model.revision},
        content_sha256=packed.digest,
        parameters=plan.parameters,
        bits_per_weight=_bits(packed, plan),
        unquantized_dtype=section.unquantized_dtype,
        plugins=registry.versions(),
        evaluation=_figures(evaluation),
        notes=_notes(packed),
    )


def _result(
    folder: Path, sizes: Mapping[str, int], manifest: Manifest, plan: Plan, packed: PackedModules
) -> PackResult:
    bits = manifest.bits_per_weight
    return PackResult(
        folder=folder,
        files=sizes,
        digest=packed.digest,
        parameters=plan.parameters,
        quantized_parameters=plan.quantized_parameters,
        nominal_bits=bits.nominal,
        effective_bits=bits.effective,
        file_bits=bits.file,
        compression=plan.compression,
        file_compression=2 * plan.parameters / sizes[WEIGHTS],
        constant_groups=packed.constant_groups,
        wide_tensors=tuple(packed.wide_tensors),
        notes=manifest.notes,
    )


def build_section(
    packed: PackedModules, plan: Plan, recipe: Recipe, *, unquantized: torch.dtype = torch.bfloat16
) -> PackedSection:
    """The `quantization_config` of a packed model."""
    if not plan.quantized:
        raise CheckpointError("the recipe quantizes no module, so there is nothing to pack")
    layouts, modules = store_layouts(packed.layouts)
    return PackedSection(
        layouts=layouts,
        modules=modules,
        tied={module.name: module.tied_to for module in plan.modules if module.params and module.tied_to},
        guard=_guard(plan),
        activations=plan.activations.model_dump(mode="json") if plan.activations else None,
        kv_cache=plan.kv_cache.model_dump(mode="json") if plan.kv_cache else None,
        unquantized_dtype=dtype_name(unquantized),
        recipe=recipe.to_dict(),
        content_sha256=packed.digest,
    )


def _guard(plan: Plan) -> str:
    """The ordinary name of a quantized parameter, which a reader that does not know the format finds misshapen."""
    names = [module.parameter_name for module in plan.quantized]
    return next((name for name in names if name.endswith(".weight")), names[0])


def _config_text(model: Any, section: PackedSection) -> str:
    """config.json of the model with the section in it; the dtype is the one the student computed in."""
    config = json.loads(model.config.to_json_string())
    config["architectures"] = [type(model).__name__]
    config["dtype"] = str(model.dtype).removeprefix("torch.")
    config["quantization_config"] = section.to_dict()
    return json.dumps(config, indent=1, sort_keys=True) + "\n"


def _save_companions(model: Any, section: PackedSection, tokenizer: Any, folder: Path, beside: Sequence[Path]) -> None:
    (folder / CONFIG).write_text(_config_text(model, section), encoding="utf-8")
    for path in beside:
        shutil.copyfile(path, folder / path.name)
    if model.can_generate():
        model.generation_config.save_pretrained(folder)
    if tokenizer is not None:
        try:
            tokenizer.save_pretrained(folder)
        except Exception as error:  # the tokenizers library raises bare exceptions
            raise CheckpointError(f"the tokenizer cannot be written: {error}") from error


def _bits(packed: PackedModules, plan: Plan) -> BitsPerWeight:
    return BitsPerWeight(
        nominal=plan.nominal_bits,
        effective=plan.effective_bits,
        file=8 * packed.bytes / max(plan.quantized_parameters, 1),
    )


def _figures(evaluation: Any) -> dict[str, Any] | None:
    if evaluation is None or isinstance(evaluation, Mapping):
        return dict(evaluation) if evaluation else None
    if is_dataclass(evaluation) and not isinstance(evaluation, type):
        return asdict(evaluation)
    raise CheckpointError(f"evaluation: expected figures by name, found {type(evaluation).__name__}")


def _notes(packed: PackedModules) -> tuple[str, ...]:
    notes = [
        f"{name}: {count} groups of constant magnitude became zero or doubled, as ternary absmean does; "
        "scale: absmax is exact on them"
        for name, count in packed.constant_groups.items()
    ]
    notes += [f"{name}: widths mix inside its rows; each row is stored at its widest" for name in packed.mixed_inside]
    notes += packed.notes
    notes += [f"{name}: no 16-bit float holds it exactly; stored in its own dtype" for name in packed.wide_tensors]
    return tuple(notes)
