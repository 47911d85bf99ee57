"""Packing without training: a 16-bit model, or the latent weights of a run, rounded to the recipe's quantizers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from edgerazor.checkpoint.folder import check_replaceable
from edgerazor.checkpoint.learned_scales import learn_scales, load_scales
from edgerazor.checkpoint.storage import round_unquantized_, unquantized_dtype
from edgerazor.checkpoint.write import PackResult, write_checkpoint
from edgerazor.core.apply import apply_plan
from edgerazor.core.claims import claimed
from edgerazor.core.plan import Plan, build_plan
from edgerazor.core.registry import Registry
from edgerazor.errors import CheckpointError
from edgerazor.models.load import Models
from edgerazor.models.source import ModelSource
from edgerazor.schemas.recipe import Recipe


def pack_model(recipe: Recipe, *, registry: Registry, output: str | Path) -> PackResult:
    """Quantize `recipe.model` as its weights are stored, without training, and write a packed checkpoint.

    Args:
        recipe: the model is a folder or hub name of a 16-bit model, or a folder of latent weights that a run saved;
            the latter must have been trained with the same quantizers.
        registry: loaded plugins.
        output: folder of the checkpoint; free, empty, or a checkpoint to replace.

    Raises:
        CheckpointError: the model is missing, already packed, trained with other quantizers, or not finite; or the
            output cannot be written.
        OutputError: another process writes to the output.
        PlanError: the recipe does not fit the model.
    """
    check_replaceable(Path(output))
    with claimed(Path(output)):
        return _pack(recipe, registry, output)


def _pack(recipe: Recipe, registry: Registry, output: str | Path) -> PackResult:
    source = Models(recipe.model, registry).student
    config = source.config
    model, weights = source.load_unread() or (source.load(), None)
    plan = build_plan(model, recipe.quantization, adapter=source.adapter, registry=registry)
    trained = _recipe_of_latent_weights(config, recipe.model.name_or_path, plan)
    dtype = unquantized_dtype(config) if trained is not None else None
    apply_plan(model, plan, registry=registry)
    if trained is not None:
        if (trained.get("training") or {}).get("scale_learning_rate"):
            load_scales(learn_scales(model, plan), Path(recipe.model.name_or_path))
        # As the end of a run does, so that both ways of packing it give the same files.
        round_unquantized_(model, dtype)
    return write_with_tokenizer(
        source, model, output, recipe=recipe, plan=plan, registry=registry, unquantized=dtype, weights=weights
    )


def write_with_tokenizer(
    source: ModelSource, model: Any, output: str | Path, *, plan: Plan, **given: Any
) -> PackResult:
    """`write_checkpoint` with the tokenizer of the source, and a note where it has none; the plan's notes come first.

    Args:
        source: of the model.
        model, output, plan: as for `write_checkpoint`.
        given: the other arguments of `write_checkpoint`.

    Raises:
        CheckpointError: as `write_checkpoint`, or the tokenizer cannot be read.
    """
    tokenizer = source.companion
    written = write_checkpoint(model, output, plan=plan, tokenizer=tokenizer, beside=source.processor_files, **given)
    missing = "image processor" if source.classifies_images else "tokenizer"
    absent = () if tokenizer is not None else (f"{source.name}: has no {missing}, so {output} has none either",)
    return replace(written, notes=(*plan.notes, *written.notes, *absent))


def _recipe_of_latent_weights(config: Any, name: str, plan: Plan) -> dict[str, Any] | None:
    """The recipe of a model in training, None for any other; CheckpointError if its quantizers are not the plan's."""
    stored: Any = getattr(config, "quantization_config", None)
    if stored is None:
        return None
    content = stored if isinstance(stored, dict) else stored.to_dict()
    trained: dict[str, Any] = content.get("recipe") or {}
    if trained.get("quantization") != plan.quantization.model_dump(mode="json"):
        raise CheckpointError(
            f"{name}: was trained with other quantizers than the recipe has; pack it with the recipe of its run"
        )
    return trained
