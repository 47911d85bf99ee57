"""`training.allocation`: widths by sensitivity before a run; every process and every resumed part has the same."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console

from edgerazor.allocate import AllocationSettings, allocate
from edgerazor.checkpoint import open_checkpoint
from edgerazor.core.registry import Registry
from edgerazor.core.run_folder import ALLOCATION, RECIPE
from edgerazor.errors import RecipeError, TrainingError
from edgerazor.models.load import plan_recipe
from edgerazor.schemas.recipe import Recipe, load_recipe
from edgerazor.training import TrainResult, train
from tests.commands import succeed
from tests.families import FAMILIES, family_model
from tests.ranks import end_ranks, start_ranks
from tests.runs import SIZES, preset_recipe, quantization, recipe, save_data, tokenizer, write_recipe

SQMP = {"name": "sqmp", "high_ratio": 0.125, "group_size": 32}
SIGNED = {"name": "int", "bits": 4, "symmetric": False, "scale": "signed_absmax"}
SMALL_PRESET = {"name": "edgerazor-2.79-bit", "group_sizes": SIZES}
WHOLE = {"free": True, "candidates": ["ternary", SIGNED], "samples": 8}


def content(folder: Path, allocation: Any = WHOLE, **training: Any) -> dict[str, Any]:
    training = {"max_steps": 2, "save_steps": 1, "allocation": allocation, **training}
    return recipe(folder, quantization=quantization(SQMP), training=training)


def run(
    folder: Path, name: str, registry: Registry, resume: bool = False, **changes: Any
) -> tuple[Recipe, TrainResult]:
    loaded = load_recipe(content(folder, **changes), registry=registry)
    with (folder / f"{name}.log").open("a") as log:
        console = Console(file=log)
        return loaded, train(loaded, registry=registry, output=folder / name, resume=resume, console=console)


def widths(result: TrainResult, registry: Registry) -> dict[str, Any]:
    """The quantizer of every module of a packed student, as its own recipe has it."""
    assert result.checkpoint is not None
    stored = load_recipe(open_checkpoint(result.checkpoint, registry=registry).section.recipe, registry=registry)
    assert stored.training.allocation is None
    return {module.name: module.params for module in plan_recipe(stored, registry=registry).modules}


@pytest.mark.slow
@pytest.mark.parametrize("allocation", [WHOLE, {"rows": True, "samples": 8}, True], ids=["whole", "rows", "true"])
def test_a_run_trains_and_packs_what_the_command_would_have_chosen(
    tmp_path: Path, registry: Registry, allocation: Any
) -> None:
    loaded, result = run(tmp_path, "run", registry, allocation=allocation)
    section = loaded.training.allocation
    assert section is not None
    chosen = AllocationSettings(
        1.88,
        batches=section.samples // 4,
        free=section.free,
        rows=section.rows,
        measure=False,
        seed=loaded.training.seed,
        **({"candidates": section.candidates} if section.candidates else {}),
    )
    found = allocate(loaded, chosen, registry=registry)
    plan = plan_recipe(found.recipe, registry=registry)
    packed = widths(result, registry)
    assert packed == {module.name: module.params for module in plan.modules}
    assert len({params for name, params in packed.items() if ".layers." in name}) > 1
    kept = yaml.safe_load((tmp_path / "run" / ALLOCATION).read_text())
    assert kept["bits"] == pytest.approx(found.allocated.bits, abs=1e-4) and kept["bits"] <= 1.8825
    assert kept["predicted_kl"] < kept["predicted_kl_uniform"]
    assert "allocation: 1.8" in (tmp_path / "run.log").read_text()
    # The recipe of the run says what was asked for, so that it can be run again.
    assert load_recipe(tmp_path / "run" / RECIPE, registry=registry).training.allocation == section
    assert "ok" in succeed("verify", tmp_path / "run" / "packed")


@pytest.mark.slow
def test_a_run_that_goes_on_keeps_its_widths(tmp_path: Path, registry: Registry) -> None:
    _, whole = run(tmp_path, "whole", registry, max_steps=3)
    _, first = run(tmp_path, "cut", registry, max_steps=2)
    path = tmp_path / "cut" / ALLOCATION
    before = path.read_text()
    _, second = run(tmp_path, "cut", registry, resume=True, max_steps=3)
    assert path.read_text() == before
    assert widths(second, registry) == widths(first, registry) == widths(whole, registry)
    for changed, message in ((before[: before.index("weights")], "weights: expected a list"), (None, "cannot be read")):
        broken = shutil.copytree(tmp_path / "cut", tmp_path / f"broken-{changed is None}")
        (broken / ALLOCATION).unlink()
        if changed is not None:
            (broken / ALLOCATION).write_text(changed)
        with pytest.raises(TrainingError, match=f"{ALLOCATION}: {message}.*; start a new "):
            run(tmp_path, broken.name, registry, resume=True, max_steps=4)


def test_nothing_is_allocated_unless_a_recipe_asks_for_it(tmp_path: Path, registry: Registry) -> None:
    for off in (None, False):
        loaded, result = run(tmp_path, f"run-{off}", registry, allocation=off, max_steps=1)
        assert loaded.training.allocation is None and not (tmp_path / f"run-{off}" / ALLOCATION).exists()
        assert {params.name for name, params in widths(result, registry).items() if ".layers." in name} == {"sqmp"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"allocation": {"rows": True, "candidates": ["int4"]}}, r"training\.allocation: rows: true chooses among"),
        ({"allocation": {"candidates": []}}, r"training\.allocation\.candidates: "),
        (
            {"allocation": {"candidates": ["int9"]}},
            r"training\.allocation\.candidates: 'int9' is no candidate",
        ),
        ({"allocation": {"free": True, "sample": 3}}, r"training\.allocation has no 'sample'; did you mean 'samples'"),
        ({"allocation": True, "start": "."}, r"training\.allocation: the checkpoint of training\.start has widths"),
    ],
)
def test_what_cannot_be_is_said_when_the_recipe_is_read(
    tmp_path: Path, registry: Registry, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(content(tmp_path, **changes), registry=registry)


def test_pictures_have_no_tokens_to_be_sensitive_to(tmp_path: Path, registry: Registry) -> None:
    raw = content(tmp_path)
    raw["data"] |= {"task": "image_classification", "sequence_length": None}
    raw["data"] = {key: value for key, value in raw["data"].items() if value is not None}
    with pytest.raises(RecipeError, match=r"training\.allocation: is for texts"):
        load_recipe(raw, registry=registry)


@pytest.mark.parametrize(
    ("allocation", "message"),
    [
        ({"candidates": ["{name: intt}"]}, "candidate {name: intt}: no quantizer named 'intt'"),
        ({"target_bits": 1.0}, r"a target of 1 bits: ternary matrices have 1\.58 bits"),
        ({"candidates": ["int4"]}, r"1\.88\d* bits: the narrowest candidates that fit take 4\.0000"),
    ],
)
def test_what_does_not_fit_is_said_before_the_first_step(
    tmp_path: Path, registry: Registry, allocation: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError if "narrowest" not in message else Exception, match=message):
        run(tmp_path, "run", registry, allocation=allocation)
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.slow
@pytest.mark.subprocess
def test_all_processes_have_the_widths_that_the_first_one_chose(tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "recipe.yaml", content(tmp_path))
    for more in ([], ["--resume", "--set", "training.max_steps=3"]):
        logs = tmp_path / f"logs{len(more)}"
        codes, words = end_ranks(start_ranks(["train", path, "--output", tmp_path / "run", *more], logs), logs)
        assert codes == [0, 0], words
        assert ("allocation: " in words[0]) is not bool(more) and "allocation: " not in words[1]
    assert "ok" in succeed("verify", tmp_path / "run" / "packed")


@pytest.mark.slow
@pytest.mark.parametrize("name", list(FAMILIES))
def test_every_family_trains_by_a_preset_of_ours_that_mixes_widths(
    name: str, tmp_path: Path, registry: Registry
) -> None:
    words = tokenizer(size=280)
    sizes = {} if name == "omni" else {"vocab_size": len(words)}
    family_model(name, **sizes).to(torch.bfloat16).save_pretrained(tmp_path / "model")
    words.save_pretrained(tmp_path / "model")
    raw = preset_recipe(tmp_path / "model", save_data(tmp_path / "data.jsonl"), preset=SMALL_PRESET)
    raw["training"] |= {"max_steps": 1, "start_samples": 2}
    layers = {"distillation.losses[1].layers={name: fixed, layers: [-1]}"}
    loaded = load_recipe(raw, registry=registry, overrides=sorted(layers))
    assert loaded.training.start == "calibrated" and loaded.training.allocation is not None
    result = train(loaded, registry=registry, output=tmp_path / "run", console=Console(quiet=True))
    packed = widths(result, registry)
    assert {"ternary", "int"} <= {params.name for params in packed.values() if params is not None}
    # Texts say nothing of pictures and sounds: their towers keep the rows of two widths.
    mixed = {name for name, params in packed.items() if params is not None and params.name == "sqmp"}
    assert mixed == {name for name in packed if "visual" in name or "audio" in name}
    assert "ok" in succeed("verify", tmp_path / "run" / "packed")
