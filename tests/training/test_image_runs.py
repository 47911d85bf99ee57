"""Image classifiers from a recipe to a packed checkpoint: trained, measured, loaded by transformers, verified."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification

from edgerazor import load_plugins
from edgerazor.checkpoint import load_model, open_checkpoint, pack_model, verify_checkpoint
from edgerazor.core.registry import Registry
from edgerazor.errors import CheckpointError, DataError, EdgeRazorError, ExportError, PlanError, RecipeError
from edgerazor.evaluate.checkpoints import evaluate_checkpoint
from edgerazor.models.load import plan_recipe
from edgerazor.models.types import auto_class
from edgerazor.schemas.recipe import Recipe, load_recipe
from edgerazor.training.training import train
from tests.adapters.image_models import image_config
from tests.commands import fail, succeed
from tests.data.pictures import processor, save_folder

SIDES = {"vit": 8, "resnet": 32}


def save_teacher(name: str, folder: Path, *, names: tuple[str, str] = ("left", "right"), **changes: Any) -> str:
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}
    widths = {"embedding_size": 32, "hidden_sizes": [32, 64]} if name == "resnet" else {}
    values = {"num_labels": 2, **labels, **widths, **changes}
    torch.manual_seed(0)
    config = image_config(name, **values)
    auto_class(config).from_config(config).save_pretrained(folder)
    processor(SIDES[name]).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_folder(tmp_path_factory.mktemp("pictures") / "data", 8)


def recipe_of(name: str, teacher: str, pictures: Path, registry: Registry, **sections: Any) -> Recipe:
    content: dict[str, Any] = {
        "model": {"name_or_path": teacher},
        "preset": "1.88-bit",
        "data": {
            "task": "image_classification",
            "sources": str(pictures),
            "held_out": 0.25,
            "images": {"flip": False, "crop": 0.8, "mixup": 0.3},
        },
        "training": {"max_steps": 3, "per_device_train_batch_size": 6, "use_cpu": True, "save_steps": 2},
    }
    # A selector has no more layers to choose than the model has.
    layers = {"top_k": 2} if name == "vit" else {"metric": "norm", "top_k": 1}
    losses = [{"name": "eakld"}, {"name": "feature_mse", "layers": {"name": "lafd", **layers}}]
    content["distillation"] = {"losses": losses}
    return load_recipe({**content, **sections}, registry=registry)


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_a_run_ends_in_a_checkpoint_that_transformers_loads(
    registry: Registry, tmp_path: Path, pictures: Path, name: str
) -> None:
    teacher = save_teacher(name, tmp_path / "teacher")
    recipe = recipe_of(name, teacher, pictures, registry)
    result = train(recipe, registry=registry, output=tmp_path / "run")
    assert result.checkpoint is not None and result.steps == 3
    assert {"eval_top1", "eval_top5", "eval_loss", "eval_kl_teacher", "eval_images"} <= set(result.evaluation)
    assert result.evaluation["eval_images"] == 4 and result.evaluation["eval_top5"] == 1.0
    measured = evaluate_checkpoint(result.checkpoint, registry=registry)
    for key in ("top1", "top5", "loss", "kl_teacher", "top1_agreement", "images"):
        value = measured.to_dict()[key]
        assert value == pytest.approx(result.evaluation[f"eval_{key}"], abs=1e-6)
    assert verify_checkpoint(result.checkpoint, logits=True, registry=registry).faults == ()
    images = AutoImageProcessor.from_pretrained(result.checkpoint)(images=[_picture()], return_tensors="pt")
    loaded = AutoModelForImageClassification.from_pretrained(result.checkpoint)
    with torch.no_grad():
        expected = load_model(result.checkpoint, registry=registry)(**images).logits
        assert torch.equal(loaded(**images).logits, expected) and expected.shape == (1, 2)
        plain = load_model(result.checkpoint, dequantize=True, registry=registry)
        assert not hasattr(plain.config, "quantization_config") or plain.config.quantization_config is None
    card = (result.checkpoint / "README.md").read_text(encoding="utf-8")
    assert "AutoModelForImageClassification" in card and "AutoImageProcessor" in card


def test_a_resumed_run_draws_what_it_would_have_drawn(registry: Registry, tmp_path: Path, pictures: Path) -> None:
    teacher = save_teacher("vit", tmp_path / "teacher")
    recipe = recipe_of("vit", teacher, pictures, registry)
    whole = train(recipe, registry=registry, output=tmp_path / "whole")
    longer = tmp_path / "cut" / "checkpoints"
    longer.mkdir(parents=True)
    for part in ("recipe.yaml", "checkpoints/checkpoint-2"):
        source, target = tmp_path / "whole" / part, tmp_path / "cut" / part
        if source.is_dir():
            target.mkdir()
            for file in source.iterdir():
                (target / file.name).write_bytes(file.read_bytes())
        else:
            target.write_bytes(source.read_bytes())
    resumed = train(recipe, registry=registry, output=tmp_path / "cut", resume=True)
    assert resumed.evaluation == whole.evaluation


def test_without_labels_there_is_distillation_alone(registry: Registry, tmp_path: Path, pictures: Path) -> None:
    teacher = save_teacher("vit", tmp_path / "teacher")
    bare = tmp_path / "bare"
    bare.mkdir()
    for number, file in enumerate(sorted(pictures.rglob("*.png"))):
        (bare / f"{number}.png").write_bytes(file.read_bytes())
    data = {"task": "image_classification", "sources": str(bare)}
    with pytest.raises(DataError, match="no labels to learn the task from"):
        train(recipe_of("vit", teacher, bare, registry, data=data), registry=registry, output=tmp_path / "refused")
    cakld = {"task_weight": 0.0, "losses": [{"name": "cakld"}]}
    recipe = recipe_of("vit", teacher, bare, registry, data=data, distillation=cakld)
    with pytest.raises(DataError, match="cakld reads the label of every row, but 16 have none"):
        train(recipe, registry=registry, output=tmp_path / "refused")
    alone = {"task_weight": 0.0, "losses": [{"name": "forward_kl"}]}
    recipe = recipe_of("vit", teacher, bare, registry, data=data, distillation=alone)
    assert train(recipe, registry=registry, output=tmp_path / "run").checkpoint is not None


def test_packing_without_training_keeps_the_processor(registry: Registry, tmp_path: Path, pictures: Path) -> None:
    teacher = save_teacher("resnet", tmp_path / "teacher")
    recipe = recipe_of("resnet", teacher, pictures, registry)
    packed = pack_model(recipe, registry=registry, output=tmp_path / "packed")
    assert (packed.folder / "preprocessor_config.json").exists()
    assert any("one scale a row" in note for note in packed.notes)
    assert evaluate_checkpoint(packed.folder, registry=registry).to_dict()["images"] == 4
    (Path(teacher) / "preprocessor_config.json").unlink()
    bare = pack_model(recipe, registry=registry, output=tmp_path / "bare")
    assert any("has no image processor" in note for note in bare.notes)
    with pytest.raises(CheckpointError, match=r"has no preprocessor_config\.json"):
        train(recipe, registry=registry, output=tmp_path / "run")


def test_a_model_rounded_without_data_is_measured_on_pictures_that_are_given(tmp_path: Path, pictures: Path) -> None:
    teacher = save_teacher("vit", tmp_path / "teacher")
    succeed("pack", teacher, "--preset", "4-bit", "--output", tmp_path / "packed")
    assert "images: 16" in succeed("evaluate", tmp_path / "packed", "--data", pictures)
    assert "classifies images; expected a language model" in fail("generate", tmp_path / "packed", "--prompt", "x")


@pytest.mark.parametrize("name", ["compressed-tensors", "gguf", "mlx"])
def test_formats_of_language_models_refuse_by_fact(
    registry: Registry, tmp_path: Path, pictures: Path, name: str
) -> None:
    recipe = recipe_of("resnet", save_teacher("resnet", tmp_path / "teacher"), pictures, registry)
    packed = pack_model(recipe, registry=registry, output=tmp_path / "packed").folder
    exporter = registry.build(registry.params("exporter", name, path=str(tmp_path / "out")))
    with pytest.raises(ExportError, match="the model classifies images of 1 channels into 2 classes"):
        exporter.check(open_checkpoint(packed, registry=registry))


def test_a_plan_is_made_from_the_configuration_alone(registry: Registry, tmp_path: Path, pictures: Path) -> None:
    for name in ("vit", "resnet"):
        teacher = save_teacher(name, tmp_path / name)
        plan = plan_recipe(recipe_of(name, teacher, pictures, registry), registry=registry)
        assert {module.kind for module in plan.modules} == {"linear", "conv"} and plan.coverage > 0.8
        first, head = ({module.name: module for module in plan.modules}[key] for key in _ends(name))
        assert first.nominal_bits == head.nominal_bits == 4.0


def _ends(name: str) -> tuple[str, str]:
    if name == "vit":
        return "vit.embeddings.patch_embeddings.projection", "classifier"
    return "resnet.embedder.embedder.convolution", "classifier.1"


@pytest.mark.parametrize(
    ("sections", "error", "message"),
    [
        ({"data": {"sources": "texts.jsonl"}}, RecipeError, "data.task: is language_modeling, but .* image_classif"),
        ({"data": {"task": "image_classification", "sources": "no"}}, DataError, "no: no such file or folder"),
    ],
)
def test_what_does_not_fit_is_said_before_training(
    registry: Registry, tmp_path: Path, pictures: Path, sections: Any, error: type[EdgeRazorError], message: str
) -> None:
    teacher = save_teacher("vit", tmp_path / "teacher")
    recipe = recipe_of("vit", teacher, pictures, registry, **sections)
    with pytest.raises(error, match=message):
        train(recipe, registry=registry, output=tmp_path / "run")


@pytest.mark.subprocess
def test_a_damaged_picture_is_named_by_another_process_as_well(
    registry: Registry, tmp_path: Path, pictures: Path
) -> None:
    damaged = Path(shutil.copytree(pictures, tmp_path / "damaged"))
    for file in damaged.rglob("*.png"):
        file.write_bytes(file.read_bytes()[:-30])
    data = {"task": "image_classification", "sources": str(damaged)}
    training = {"max_steps": 1, "per_device_train_batch_size": 4, "use_cpu": True, "dataloader_num_workers": 1}
    recipe = recipe_of(
        "vit", save_teacher("vit", tmp_path / "teacher"), damaged, registry, data=data, training=training
    )
    with pytest.raises(DataError) as caught:
        train(recipe, registry=registry, output=tmp_path / "run")
    assert re.fullmatch(f"{damaged}/(left|right)/[0-9]+.png: image file is truncated.*", str(caught.value))


def test_init_writes_a_recipe_of_pictures(tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("vit", "resnet"):
        deep = {"num_hidden_layers": 3} if name == "vit" else {"hidden_sizes": [32, 32, 64], "depths": [1, 1, 1]}
        teacher = save_teacher(name, tmp_path / name, **deep)
        succeed("init", "recipe.yaml", "--model", teacher, "--force")
        recipe = load_recipe(tmp_path / "recipe.yaml", registry=load_plugins(external=False))
        assert recipe.data is not None and recipe.data.task == "image_classification"
        assert "there is no file or folder data/train" in fail("check", "recipe.yaml")
        succeed("check", "recipe.yaml", "--set", f"data.sources={pictures}")


def test_check_names_the_task_of_another_model(tmp_path: Path, pictures: Path) -> None:
    teacher = save_teacher("vit", tmp_path / "teacher")
    path = tmp_path / "recipe.yaml"
    path.write_text(f"model: {{name_or_path: {teacher}}}\npreset: 4-bit\ndata: {{sources: {pictures}}}\n")
    assert "data.task: is language_modeling, but" in fail("check", path)


def test_a_teacher_that_numbers_classes_otherwise_is_refused(
    registry: Registry, tmp_path: Path, pictures: Path
) -> None:
    student = save_teacher("vit", tmp_path / "student")
    teacher = save_teacher("vit", tmp_path / "teacher", names=("right", "left"))
    recipe = recipe_of("vit", student, pictures, registry, model={"name_or_path": student, "teacher": teacher})
    with pytest.raises(PlanError, match="number 2 classes differently, for example 'left'"):
        train(recipe, registry=registry, output=tmp_path / "run")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"task": "image_classification", "sources": "x", "sequence_length": 64}, "sequence_length: means nothing"),
        ({"sources": "x", "images": {"flip": True}}, "images: means nothing for task language_modeling"),
        ({"task": "image_classification", "sources": "x", "images": {"crop": 0}}, "crop"),
    ],
)
def test_keys_of_another_task_are_refused(registry: Registry, data: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(
            {"model": {"name_or_path": "x", "family": "vit"}, "preset": "4-bit", "data": data}, registry=registry
        )


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"distillation": {"losses": ["eakld"], "teacher_cache": "x"}}, r"distillation\.teacher_cache: is for texts"),
    ],
)
def test_what_is_for_texts_alone_is_refused(registry: Registry, sections: Any, message: str) -> None:
    data = {"task": "image_classification", "sources": "x"}
    content = {"model": {"name_or_path": "x", "family": "vit"}, "preset": "4-bit", "data": data, **sections}
    with pytest.raises(RecipeError, match=message):
        load_recipe(content, registry=registry)


def _picture() -> Any:
    from tests.data.pictures import picture

    return picture(0, 0)
