"""A cached teacher: training from it equals training beside the teacher, and what does not belong is refused."""

import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from edgerazor.cli import app
from edgerazor.core.outputs import Targets
from edgerazor.data import load_data
from edgerazor.distill import Distiller
from edgerazor.distill.teacher_cache import TeacherCache, cache_teacher, format
from edgerazor.distill.teacher_cache.folder import BEGUN, prepare_folder, write_description
from edgerazor.distill.teacher_cache.read import check_losses
from edgerazor.errors import CheckpointError, DataError, EdgeRazorError, PlanError, RecipeError
from edgerazor.kernels.cached_teacher import top_tokens
from edgerazor.models.source import ModelSource
from edgerazor.recipes.check import check_recipe
from edgerazor.schemas.recipe import load_recipe
from edgerazor.training import train
from tests.limits import quota
from tests.runs import recipe, save_model, write_recipe

pytestmark = pytest.mark.slow

LOSSES = [
    {"name": "eakld", "weight": 2.0, "scope": "sequence"},
    {"name": "forward_kl", "temperature": 2.0, "weight": 0.5},
    {"name": "cakld", "scope": "token"},
]


def content(folder, **distillation):
    return recipe(folder, distillation={"task_weight": 0.1, "losses": LOSSES, **distillation})


def load(registry, folder, **distillation):
    return load_recipe(content(folder, **distillation), registry=registry)


def losses(result):
    return [entry["loss"] for entry in result.history if "loss" in entry]


@pytest.mark.slow
def test_training_from_all_tokens_equals_training_beside_the_teacher(tmp_path, registry, monkeypatch):
    live = train(load(registry, tmp_path), registry=registry, output=tmp_path / "live")
    path = write_recipe(tmp_path / "recipe.yaml", content(tmp_path))
    vocabulary = yaml.safe_load((tmp_path / "model" / "config.json").read_text())["vocab_size"]
    command = ["cache-teacher", str(path), "--output", str(tmp_path / "cache"), "--top-k", str(vocabulary)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "distillation.teacher_cache=" in result.output
    cached = load(registry, tmp_path, teacher_cache=str(tmp_path / "cache"))
    # Probabilities are kept in half precision.
    again = train(cached, registry=registry, output=tmp_path / "cached")
    assert losses(again) == pytest.approx(losses(live), rel=1e-2)
    assert again.evaluation["eval_kl_teacher"] == pytest.approx(live.evaluation["eval_kl_teacher"], rel=2e-2)
    some = cache_teacher(load(registry, tmp_path), registry=registry, output=tmp_path / "few", top_k=8)
    assert some.bytes < 0.2 * sum(file.stat().st_size for file in (tmp_path / "cache").iterdir())
    few = train(
        load(registry, tmp_path, teacher_cache=str(tmp_path / "few")), registry=registry, output=tmp_path / "from-few"
    )
    assert 0.2 * losses(live)[0] < losses(few)[0] < losses(live)[0]


def test_a_cache_that_was_interrupted_goes_on(tmp_path, registry, monkeypatch):
    monkeypatch.setattr("edgerazor.distill.teacher_cache.write.SHARD_ROWS", 16)
    wanted, folder = load(registry, tmp_path), tmp_path / "cache"
    whole = cache_teacher(wanted, registry=registry, output=folder, top_k=4)
    assert whole.kept_shards == 0 and whole.rows == 48
    manifest = TeacherCache(folder).manifest
    (folder / format.MANIFEST).unlink()
    before = load_file(folder / format.shard_name(1))
    (folder / format.shard_name(1)).unlink()
    with pytest.raises(EdgeRazorError, match="no finished teacher cache"):
        TeacherCache(folder)
    write_description(folder / BEGUN, manifest)
    left = folder / f".{format.shard_name(1)}.partial-0a1b2c3d"
    left.mkdir()
    (left / format.shard_name(1)).write_text("of a call that was killed")
    again = cache_teacher(wanted, registry=registry, output=folder, top_k=4)
    assert again.kept_shards == 2 and again.positions == whole.positions
    after = load_file(folder / format.shard_name(1))
    assert all((after[key] == value).all() for key, value in before.items())
    assert sorted(path.name for path in folder.iterdir()) == [
        format.MANIFEST,
        *(format.shard_name(shard) for shard in range(3)),
    ]
    with pytest.raises(RecipeError, match="top_k 4 instead of 5"):
        cache_teacher(wanted, registry=registry, output=folder, top_k=5)


def test_a_full_disk_keeps_what_is_finished(tmp_path, registry, monkeypatch):
    monkeypatch.setattr("edgerazor.distill.teacher_cache.write.SHARD_ROWS", 16)
    wanted, folder = load(registry, tmp_path), tmp_path / "cache"
    with quota(200_000), pytest.raises(CheckpointError, match=r"rows-00000.* cannot be written: .*too large.*goes on"):
        cache_teacher(wanted, registry=registry, output=folder, top_k=320)
    assert [path.name for path in folder.iterdir()] == [BEGUN]
    assert cache_teacher(wanted, registry=registry, output=folder, top_k=320).rows == 48
    with quota(100), pytest.raises(CheckpointError, match=r"begun.json: cannot be written: File too large"):
        prepare_folder(tmp_path / "other", TeacherCache(folder).manifest)
    assert list((tmp_path / "other").iterdir()) == []


def test_a_damaged_cache_is_found_before_training_and_repaired(tmp_path, registry, monkeypatch):
    monkeypatch.setattr("edgerazor.distill.teacher_cache.write.SHARD_ROWS", 16)
    wanted, folder = load(registry, tmp_path), tmp_path / "cache"
    cache_teacher(wanted, registry=registry, output=folder, top_k=4)
    (folder / format.shard_name(0)).unlink()
    torn = folder / format.shard_name(2)
    torn.write_bytes(torn.read_bytes()[:-40])
    cached = load(registry, tmp_path, teacher_cache=str(folder))
    with pytest.raises(CheckpointError, match=r"rows-00000.safetensors, rows-00002.safetensors \(2 of 3 files\)"):
        train(cached, registry=registry, output=tmp_path / "run")
    assert cache_teacher(wanted, registry=registry, output=folder, top_k=4).kept_shards == 1
    TeacherCache(folder).check_rows(_rows(wanted, registry))


def _rows(loaded, registry):
    return load_data(loaded.data, ModelSource(loaded.model.name_or_path, registry=registry).tokenizer).train


def test_another_teacher_is_noticed(tmp_path, registry):
    cache_teacher(load(registry, tmp_path), registry=registry, output=tmp_path / "cache", top_k=4)
    other = save_model(tmp_path / "other", seed=7)
    both = content(tmp_path, teacher_cache=str(tmp_path / "cache"))
    both["model"]["teacher"] = str(other)
    path = write_recipe(tmp_path / "recipe.yaml", both)
    with pytest.raises(RecipeError, match=r"recipe.yaml: .*cache: was made by the teacher .*model, and .*other"):
        check_recipe(path, registry=registry)
    with pytest.raises(PlanError, match="was made by the teacher"):
        train(load_recipe(both, registry=registry), registry=registry, output=tmp_path / "run")
    both["model"]["teacher"] = str(tmp_path / "other" / ".." / "model")
    check_recipe(write_recipe(path, both), registry=registry)


@pytest.mark.slow
def test_what_does_not_belong_is_refused_before_training(tmp_path, registry):
    cache_teacher(load(registry, tmp_path), registry=registry, output=tmp_path / "cache", top_k=4)

    def begin(**sections):
        loaded = load_recipe(
            {**content(tmp_path, teacher_cache=str(tmp_path / "cache")), **sections}, registry=registry
        )
        train(loaded, registry=registry, output=tmp_path / "run")

    cache = {"teacher_cache": str(tmp_path / "cache")}
    features = {"name": "feature_mse", "layers": {"name": "all"}}
    with pytest.raises(PlanError, match=r"feature_mse: compares more .* a teacher has to run"):
        begin(distillation={"losses": [*LOSSES, features], **cache})
    with pytest.raises(PlanError, match=r"temperatures \[1.0, 2.0\], not for \[3.0\]"):
        begin(distillation={"losses": [{"name": "forward_kl", "temperature": 3.0}], **cache})
    sources = content(tmp_path)["data"] | {"seed": 9}
    with pytest.raises(DataError, match=r"other rows of training data: something in the data section"):
        begin(data=sources)
    with pytest.raises(EdgeRazorError, match="cache-teacher"):
        begin(distillation={"losses": LOSSES, "teacher_cache": str(tmp_path / "nowhere")})
    with pytest.raises(RecipeError, match="on_policy makes new ones"):
        begin(distillation={"losses": LOSSES, "on_policy": {}, **cache})
    for losses_of, error, said in (
        ([features], RecipeError, "nothing can be cached"),
        ([*LOSSES, features], PlanError, "feature_mse: compares more"),
        ([*LOSSES, {"name": "jsd"}], PlanError, "jsd: compares more"),
    ):
        with pytest.raises(error, match=said):
            some = load_recipe(recipe(tmp_path, distillation={"losses": losses_of}), registry=registry)
            cache_teacher(some, registry=registry, output=tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with pytest.raises(RecipeError, match="data: the recipe has no such section"):
        cache_teacher(
            load_recipe(recipe(tmp_path, data=None), registry=registry), registry=registry, output=tmp_path / "none"
        )
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    with pytest.raises(RecipeError, match="not empty"):
        cache_teacher(load(registry, tmp_path), registry=registry, output=tmp_path / "full")


def test_a_loss_that_needs_no_teacher_goes_with_a_cache(registry, build_model):
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    student, teacher = (build_model("qwen3_moe", seed=seed, **experts) for seed in (1, 0))
    labels = torch.randint(0, 96, (2, 9), generator=torch.Generator().manual_seed(0))
    targets, batch = Targets.from_labels(labels), {"input_ids": labels}
    losses_of = [registry.build(registry.params("loss", name)) for name in ("forward_kl", "router_z")]
    composed = Distiller(losses_of, task_weight=0.0, adapter=registry.adapter_for("qwen3_moe"))
    check_losses(composed)
    mask = targets.predictions.mask.flatten()
    logits = teacher(input_ids=labels).logits.flatten(0, 1)[mask].detach()
    kept = top_tokens(logits, targets.next_labels().flatten()[mask], 96, (1.0,))
    cached, live = (composed(student, source, batch, targets) for source in (kept, teacher))
    torch.testing.assert_close(cached.value, live.value)
    assert float(cached.shares["router_z"]) > 0
