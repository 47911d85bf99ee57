"""`pack --calibrate`: a 16-bit model to a packed checkpoint, rounded on texts."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgerazor.calibrate.walk import decoder_layers, round_layers
from edgerazor.checkpoint.folder import check_replaceable
from edgerazor.checkpoint.pack import write_with_tokenizer
from edgerazor.checkpoint.pack_source import packing_recipe
from edgerazor.checkpoint.storage import unquantized_dtype
from edgerazor.checkpoint.write import PackResult
from edgerazor.core.apply import apply_plan
from edgerazor.core.claims import claimed
from edgerazor.core.contracts import Progress
from edgerazor.core.layers.table import kind_named
from edgerazor.core.plan import build_plan
from edgerazor.core.registry import Registry
from edgerazor.core.stored_codes import StoredCodes
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.data import load_data
from edgerazor.errors import CheckpointError, PlanError
from edgerazor.models.load import Models
from edgerazor.models.source import ModelSource
from edgerazor.schemas.data import DataSection
from edgerazor.schemas.recipe import Recipe

SEQUENCE_LENGTH = 512


def calibrate_source(
    source: str,
    texts: Path,
    *,
    registry: Registry,
    output: Path,
    preset: str | None = None,
    recipe: Path | None = None,
    overrides: Sequence[str] = (),
    samples: int = 128,
    progress: Progress | None = None,
) -> PackResult:
    """As `edgerazor.checkpoint.pack_source.pack_source` for a 16-bit model, rounded on `texts`.

    Args:
        source: folder or hub name of a 16-bit model.
        texts: file or folder of texts or conversations.
        registry: loaded plugins.
        output: folder of the packed checkpoint.
        preset: name of a preset.
        recipe: file with a `quantization` section or a preset.
        overrides: `key.path=value` strings.
        samples: at most so many rows of 512 tokens at most.
        progress: called with "rounding", layers done and layers in all.

    Raises:
        CheckpointError: `source` is a run, whose weights are trained for plain rounding.
        RecipeError: neither preset nor recipe is given, or the recipe has faults.
        EdgeRazorError: as `pack_calibrated`.
    """
    if (Path(source) / "recipe.yaml").is_file() and not (Path(source) / "config.json").is_file():
        raise CheckpointError(
            f"{source}: is a run, whose weights were trained for plain rounding; leave --calibrate out"
        )
    chosen = packing_recipe(source, registry, preset, recipe, overrides)
    data = DataSection.model_validate({"sources": [{"path": str(texts)}], "sequence_length": SEQUENCE_LENGTH})

    def show(done: int, total: int) -> None:
        if progress is not None:
            progress("rounding", done, total)

    return pack_calibrated(chosen, registry=registry, output=output, data=data, samples=samples, show=show)


def pack_calibrated(
    recipe: Recipe,
    *,
    registry: Registry,
    output: str | Path,
    data: DataSection,
    samples: int = 128,
    show: Callable[[int, int], None] = lambda done, total: None,
) -> PackResult:
    """Quantize a 16-bit model on texts (GPTQ) and write a packed checkpoint.

    The matrices of the decoder layers are calibrated, on inputs as the rounded layers before them give; embedding and
    head are rounded as `pack_model` rounds them. The model is held in float32. The same arguments give the same codes
    on one kind of processor.

    Args:
        recipe: the model is a folder or hub name of a 16-bit model.
        registry: loaded plugins.
        output: folder of the checkpoint; free, empty, or a checkpoint to replace.
        data: texts, whose rows of `sequence_length` tokens are taken in the order of the data's seed; held-out ones
            are left out.
        samples: at most so many rows.
        show: called with layers done and layers in all.

    Raises:
        CheckpointError: the model cannot be loaded, or the output cannot be written.
        DataError: the texts cannot be read.
        OutputError: another process writes to the output.
        PlanError: the recipe does not fit the model, or a quantizer cannot be calibrated.
    """
    check_replaceable(Path(output))
    with claimed(Path(output)):
        source = Models(recipe.model, registry).student
        rows = _rows(source, data, samples)
        model = source.load(torch.float32)
        plan = build_plan(model, recipe.quantization, adapter=source.adapter, registry=registry)
        if not decoder_layers(plan):
            raise PlanError("the recipe quantizes no matrix of a decoder layer, so there is nothing to calibrate")
        apply_plan(model, plan, registry=registry)
        _keep_codes(model, round_layers(model, plan, rows, show))
        dtype = unquantized_dtype(source.config)
        return write_with_tokenizer(
            source, model, output, recipe=recipe, plan=plan, registry=registry, unquantized=dtype
        )


def _keep_codes(model: nn.Module, codes: Mapping[str, QuantizedTensor]) -> None:
    """Let each matrix be packed with the codes that were found for it."""
    for name, found in codes.items():
        layer: Any = kind_named("linear").find(model, name)
        layer.weight_quantizer = StoredCodes(f"{name}.weight", partial(_same, found))


def _same(codes: QuantizedTensor) -> QuantizedTensor:
    return codes


def _rows(source: ModelSource, data: DataSection, samples: int) -> list[Tensor]:
    """Token ids `[1, T]`; every row is a document, cut where it is longer, so that nothing is padded."""
    section = data.model_copy(update={"packing": False})
    train = load_data(section, source.tokenizer, vocabulary_size=source.vocabulary_size).train
    count = min(samples, len(train))
    return [torch.tensor([train[index]["input_ids"]]) for index in range(count)]
