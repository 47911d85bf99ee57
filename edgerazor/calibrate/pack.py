"""`pack --calibrate`: a 16-bit model to a packed checkpoint, rounded on texts or pictures."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgerazor.calibrate.classifier import calibration_pictures, round_classifier
from edgerazor.calibrate.decoder import Decoder, decoder_layers, layer_dtype
from edgerazor.calibrate.journal import Journal
from edgerazor.calibrate.walk import round_layers
from edgerazor.checkpoint.folder import check_replaceable
from edgerazor.checkpoint.pack import write_with_tokenizer
from edgerazor.checkpoint.pack_source import packing_recipe
from edgerazor.checkpoint.write import PackResult
from edgerazor.core.apply import apply_plan
from edgerazor.core.claims import claimed
from edgerazor.core.contracts import Progress
from edgerazor.core.layers.table import find_layer
from edgerazor.core.plan import Plan, build_plan
from edgerazor.core.registry import Registry
from edgerazor.core.stored_codes import StoredCodes
from edgerazor.core.tensor import QuantizedTensor
from edgerazor.data import load_data
from edgerazor.errors import CheckpointError, PlanError
from edgerazor.kernels.processor import Processor, this_processor
from edgerazor.models.load import Models
from edgerazor.models.source import ModelSource
from edgerazor.schemas.data import DataSection
from edgerazor.schemas.recipe import Recipe

SEQUENCE_LENGTH = 512
Codes = Mapping[str, Callable[[], QuantizedTensor]]


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
        texts: file or folder of texts or conversations; of pictures for a classifier.
        registry: loaded plugins.
        output: folder of the packed checkpoint.
        preset: name of a preset.
        recipe: file with a `quantization` section or a preset.
        overrides: `key.path=value` strings.
        samples: at most so many rows of 512 tokens at most, or pictures.
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
    read: dict[str, Any] = {"sources": [{"path": str(texts)}]}
    pictures = Models(chosen.model, registry).student.classifies_images
    read |= {"task": "image_classification"} if pictures else {"sequence_length": SEQUENCE_LENGTH}
    data = DataSection.model_validate(read)

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
    processor: Processor | None = None,
) -> PackResult:
    """Quantize a 16-bit model on texts, or pictures of a classifier, (GPTQ) and write a packed checkpoint.

    Of a classifier all matrices are calibrated but those of convolutions in groups; it is in memory whole, and begun
    anew by the next call. Of a language model the matrices of the decoder layers are calibrated, on inputs as the
    rounded layers before them give, and last the output head; an embedding that is not tied to it is rounded as
    `pack_model` rounds it. One layer is in memory at a time, in float32, where the weights can be read one by one, as
    those of a folder in most cases; hidden states are on the disk. What is done is kept beside the output until the
    checkpoint is written: the same call goes on with the layer at which it was stopped. The same arguments give the
    same codes on one kind of processor.

    Args:
        recipe: the model is a folder or hub name of a 16-bit model.
        registry: loaded plugins.
        output: folder of the checkpoint; free, empty, or a checkpoint to replace.
        data: texts, whose rows of `sequence_length` tokens are taken in the order of the data's seed, or pictures, as
            they are; held-out ones are left out.
        samples: at most so many rows or pictures.
        show: called with layers done and layers in all; of a classifier with matrices.
        processor: the machine's; with bfloat16, states go through layers of a language model in that.

    Raises:
        CheckpointError: the model cannot be loaded, or the output cannot be written.
        DataError: the texts cannot be read.
        OutputError: another process writes to the output.
        PlanError: the recipe does not fit the model, or a quantizer cannot be calibrated.
    """
    output = Path(output)
    check_replaceable(output)
    with claimed(output):
        source = Models(recipe.model, registry).student
        plan = build_plan(source.build_meta_model(), recipe.quantization, adapter=source.adapter, registry=registry)
        if source.classifies_images:
            codes = _of_pictures(source, plan, calibration_pictures(source, data, samples), registry, show)
            return _write(source, plan, recipe, output, codes, registry)
        dtype = layer_dtype(processor or this_processor())
        journal = _journal(source, plan, calibration_rows(source, data, samples), output.resolve(), dtype)
        codes = _of_texts(source, plan, journal, registry, show, dtype)
        result = _write(source, plan, recipe, output, codes, registry)
        journal.remove()
        return result


def _journal(source: ModelSource, plan: Plan, rows: list[Tensor], output: Path, dtype: torch.dtype) -> Journal:
    """What is done already, beside the output."""
    made_from = {"recipe": plan.quantization.model_dump(mode="json"), "weights": _weights(source), "dtype": str(dtype)}
    return Journal(output.with_name(f".{output.name}.calibration"), rows, made_from)


def _write(
    source: ModelSource,
    plan: Plan,
    recipe: Recipe,
    output: Path,
    codes: Codes,
    registry: Registry,
) -> PackResult:
    """The checkpoint, with the codes that were found for its matrices."""
    model, weights = source.load_unread() or (source.load(), None)
    apply_plan(model, plan, registry=registry)
    for name, read in codes.items():
        layer: Any = find_layer(model, name)
        layer.weight_quantizer = FoundCodes(f"{name}.weight", read)
    return write_with_tokenizer(source, model, output, recipe=recipe, plan=plan, registry=registry, weights=weights)


def _of_pictures(
    source: ModelSource, plan: Plan, pictures: list[Tensor], registry: Registry, show: Callable[[int, int], None]
) -> Codes:
    """Codes of a classifier, which is held whole."""
    model = source.load(torch.float32)
    apply_plan(model, plan, registry=registry)
    codes = round_classifier(model, plan, pictures, show)
    return {name: partial(codes.__getitem__, name) for name in codes}


def _of_texts(
    source: ModelSource,
    plan: Plan,
    journal: Journal,
    registry: Registry,
    show: Callable[[int, int], None],
    dtype: torch.dtype,
) -> Codes:
    """Codes of the decoder layers and the output head, which the journal holds."""
    model, weights = source.load_by_parts(torch.float32)
    if not decoder_layers(plan, model):
        journal.remove()
        raise PlanError("the recipe quantizes no matrix of a decoder layer, so there is nothing to calibrate")
    apply_plan(model, plan, registry=registry)
    decoder = Decoder(model, plan, weights, dtype)
    round_layers(decoder, journal.rows, journal, show)
    codes: dict[str, Callable[[], QuantizedTensor]] = {
        entry.name: partial(journal.codes, index, entry.name)
        for index, name in enumerate(decoder.layers)
        for entry in decoder.entries[name]
    }
    if decoder.head is not None:
        codes[decoder.head.owner] = partial(journal.codes, len(decoder.layers), decoder.head.owner)
    return codes


class FoundCodes(StoredCodes):
    """Codes that stand for a weight without giving its values."""

    def quantize(self, x: Tensor) -> QuantizedTensor:
        return self._read()


def _weights(source: ModelSource) -> Any:
    """What tells other weights of the same name."""
    folder = Path(source.name)
    if folder.is_dir():
        files = [(path.name, path.stat()) for path in sorted(folder.glob("*.safetensors"))]
        return [str(folder.resolve()), *((name, found.st_size, found.st_mtime_ns) for name, found in files)]
    return [source.name, source.revision, getattr(source.config, "_commit_hash", None)]


def calibration_rows(source: ModelSource, data: DataSection, samples: int) -> list[Tensor]:
    """Token ids `[1, T]`; every row is a document, cut where it is longer, so that nothing is padded."""
    section = data.model_copy(update={"packing": False})
    train = load_data(section, source.tokenizer, vocabulary_size=source.vocabulary_size).train
    count = min(samples, len(train))
    return [torch.tensor([train[index]["input_ids"]]) for index in range(count)]
