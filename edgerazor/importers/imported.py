"""`import`: a folder that another program quantized becomes a packed checkpoint; nothing is rounded."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgerazor.checkpoint.folder import check_replaceable
from edgerazor.checkpoint.pack import write_with_tokenizer
from edgerazor.checkpoint.storage import unquantized_dtype
from edgerazor.checkpoint.write import PackResult
from edgerazor.core.apply import apply_plan
from edgerazor.core.atomic import scratch_folder
from edgerazor.core.claims import claimed
from edgerazor.core.layers.table import find_layer
from edgerazor.core.plan import Plan, build_plan
from edgerazor.core.registry import Registry
from edgerazor.core.stored_codes import StoredCodes
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.core.tensor_files import WEIGHTS
from edgerazor.core.tensor_spool import TensorSpool
from edgerazor.errors import CheckpointError
from edgerazor.importers.formats import CONFIG, Folder, Reader, open_reader
from edgerazor.importers.grids import describe_quantizer
from edgerazor.models.source import ModelSource
from edgerazor.schemas.base import nearest
from edgerazor.schemas.recipe import Recipe, load_recipe

_LARGEST_COPIED = 2**28  # bytes; tokenizers are small, and weights in other formats are not wanted


def import_folder(
    source: str | Path,
    *,
    registry: Registry,
    output: str | Path,
    unquantized: Sequence[str] = (),
    overrides: Sequence[str] = (),
) -> PackResult:
    """Read codes and scales out of a folder and write them as a packed checkpoint.

    Args:
        source: a model folder: compressed-tensors `pack-quantized`, GPTQ (symmetric, columns in order), or 16-bit
            weights that lie on a grid, as the original release saves its students.
        registry: loaded plugins.
        output: folder of the checkpoint; free, empty, or a checkpoint to replace.
        unquantized: globs over the modules of a 16-bit folder that stay at 16 bit.
        overrides: `key.path=value` strings, set in the recipe that the checkpoint will hold.

    Raises:
        CheckpointError: the folder is damaged, of another format, or holds what a packed checkpoint cannot hold
            exactly; the tensor is named.
        OutputError: another process writes to the output.
        PlanError: the matrices are none of the model's.
    """
    folder, output = Folder(Path(source)), Path(output)
    check_replaceable(output)
    reader = open_reader(folder, tuple(unquantized))
    if not reader.modules():
        raise CheckpointError(f"{folder.path}: no matrix in it is quantized")
    with claimed(output), _dense(folder, reader, output, registry) as (dense, quantizers):
        try:
            return _write(
                dense, reader, partial(_recipe, folder, reader, quantizers, registry, overrides), registry, output
            )
        except CheckpointError as error:
            raise CheckpointError(str(error).replace(str(dense), str(folder.path))) from error


def _write(
    dense: Path,
    reader: Reader,
    recipe_of: Callable[[Mapping[str, str]], Recipe],
    registry: Registry,
    output: Path,
) -> PackResult:
    source = ModelSource(str(dense), registry=registry)
    model, weights = source.load_unread() or (source.load(), None)
    recipe = recipe_of(_tied(model))
    plan = build_plan(model, recipe.quantization, adapter=source.adapter, registry=registry)
    apply_plan(model, plan, registry=registry)
    _store_codes(model, plan, reader)
    dtype = unquantized_dtype(source.config)
    written = write_with_tokenizer(
        source, model, output, recipe=recipe, plan=plan, registry=registry, unquantized=dtype, weights=weights
    )
    notes = (note.replace(str(dense), recipe.model.name_or_path) for note in written.notes)
    return replace(written, notes=(*reader.notes, *notes))


def _recipe(
    folder: Folder,
    reader: Reader,
    quantizers: Mapping[str, Mapping[str, Any]],
    registry: Registry,
    overrides: Sequence[str],
    tied: Mapping[str, str],
) -> Recipe:
    """A recipe whose rules say what each matrix is, modules with equal quantizers in one rule."""
    rules: dict[str, dict[str, Any]] = {}
    for module, quantizer in quantizers.items():
        rule = rules.setdefault(json.dumps(quantizer), {"match": [], "quantizer": dict(quantizer)})
        rule["match"] += [module, *(other for other, owner in tied.items() if owner == module)]
    section = {"weights": list(rules.values()), "activations": reader.activations}
    model = {"name_or_path": str(folder.path)}
    return load_recipe({"model": model, "quantization": section}, registry=registry, overrides=overrides)


def _tied(model: nn.Module) -> dict[str, str]:
    """`{module: module that owns its weight}` of output heads that share the embedding's."""
    owners: dict[int, str] = {}
    found = {}
    for name, module in model.named_modules():
        weight = module._parameters.get("weight")
        if weight is not None and owners.setdefault(id(weight), name) != name:
            found[name] = owners[id(weight)]
    return found


def _store_codes(model: nn.Module, plan: Plan, reader: Reader) -> None:
    known = set(reader.modules())
    for entry in plan.quantized:
        if entry.name not in known:
            raise CheckpointError(f"{entry.name}: is no matrix of the folder")
        layer: Any = find_layer(model, entry.name)
        layer.weight_quantizer = StoredCodes(entry.parameter_name, partial(reader.read, entry.name))


@contextmanager
def _dense(
    folder: Folder, reader: Reader, output: Path, registry: Registry
) -> Iterator[tuple[Path, dict[str, dict[str, Any]]]]:
    """For the block, a 16-bit folder with the values of all matrices, and the quantizer that stands for each.

    A folder that holds its values in 16 bit is taken as it is.
    """
    if not reader.consumed:
        yield folder.path, {module: describe_quantizer(reader.read(module)) for module in reader.modules()}
        return
    quantizers = {}
    with scratch_folder(output) as dense:
        config = {key: value for key, value in folder.config.items() if key != "quantization_config"}
        (dense / CONFIG).write_text(json.dumps(config), encoding="utf-8")
        for file in folder.path.iterdir():
            if file.is_file() and not file.is_symlink() and _belongs(file):
                shutil.copyfile(file, dense / file.name)
        expected = ModelSource(str(dense), registry=registry).build_meta_model().state_dict()
        with TensorSpool(dense) as spool:
            for name in folder.headers.keys() - reader.consumed:
                spool.add({name: folder.read(name)})
            for module in reader.modules():
                matrix = reader.read(module)
                quantizers[module] = describe_quantizer(matrix)
                _check_place(folder, f"{module}.weight", matrix, expected)
                spool.add({f"{module}.weight": matrix.dequantize(_dtype(config))})
            spool.save(dense / WEIGHTS)
        yield dense, quantizers


def _check_place(folder: Folder, name: str, matrix: QuantizedTensor, expected: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError unless the model of config.json has such a matrix."""
    found, wanted = list(matrix.codes.shape), expected.get(name)
    if wanted is None:
        raise CheckpointError(f"{folder.path}: {name}: the model of config.json has none{nearest(name, expected)}")
    if list(wanted.shape) != found:
        raise CheckpointError(f"{folder.path}: {name}: is {found}; the model of config.json has {list(wanted.shape)}")


def _belongs(file: Path) -> bool:
    """Whether a file says something of tokenizer or generation."""
    known = file.suffix in (".json", ".jinja", ".txt", ".model", ".tiktoken")
    return known and not file.name.startswith(("config", "model.safetensors")) and file.stat().st_size < _LARGEST_COPIED


def _dtype(config: Mapping[str, Any]) -> torch.dtype:
    names = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
    return names.get(str(config.get("dtype") or config.get("torch_dtype")), torch.bfloat16)
