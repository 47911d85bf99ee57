"""A cached teacher: training from it equals training beside the teacher, and what does not belong is refused."""

import json

import pytest
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from edgerazor.cli import app
from edgerazor.errors import DataError, EdgeRazorError, PlanError, RecipeError
from edgerazor.pipeline.teacher_cache import TeacherCache, cache_teacher, format
from edgerazor.pipeline.train import train
from edgerazor.schemas.recipe import load_recipe
from tests.pipeline.runs import recipe, write_recipe

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
    monkeypatch.setattr("edgerazor.pipeline.teacher_cache.write.SHARD_ROWS", 16)
    monkeypatch.setattr("edgerazor.pipeline.teacher_cache.read.SHARD_ROWS", 16)
    wanted, folder = load(registry, tmp_path), tmp_path / "cache"
    whole = cache_teacher(wanted, registry=registry, output=folder, top_k=4)
    assert whole.kept_shards == 0 and whole.rows == 48
    (folder / format.MANIFEST).unlink()
    before = load_file(folder / format.shard_name(1))
    (folder / format.shard_name(1)).unlink()
    with pytest.raises(EdgeRazorError, match="no finished teacher cache"):
        TeacherCache(folder)
    (folder / ".begun.json").write_text(json.dumps(json.loads(_manifest(wanted, registry, tmp_path))))
    again = cache_teacher(wanted, registry=registry, output=folder, top_k=4)
    assert again.kept_shards == 2 and again.positions == whole.positions
    after = load_file(folder / format.shard_name(1))
    assert all((after[key] == value).all() for key, value in before.items())
    with pytest.raises(RecipeError, match="top_k 4 instead of 5"):
        cache_teacher(wanted, registry=registry, output=folder, top_k=5)


def _manifest(wanted, registry, folder):
    """What another call of the same recipe begins with."""
    cache_teacher(wanted, registry=registry, output=folder / "other", top_k=4)
    return (folder / "other" / format.MANIFEST).read_text()


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
    with pytest.raises(DataError, match=r"other rows of training data; data.sources"):
        begin(data=sources)
    with pytest.raises(EdgeRazorError, match="cache-teacher"):
        begin(distillation={"losses": LOSSES, "teacher_cache": str(tmp_path / "nowhere")})
    with pytest.raises(RecipeError, match="on_policy makes new ones"):
        begin(distillation={"losses": LOSSES, "on_policy": {}, **cache})
    with pytest.raises(RecipeError, match="nothing to cache"):
        only = load_recipe(recipe(tmp_path, distillation={"losses": [features]}), registry=registry)
        cache_teacher(only, registry=registry, output=tmp_path / "none")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    with pytest.raises(RecipeError, match="not empty"):
        cache_teacher(load(registry, tmp_path), registry=registry, output=tmp_path / "full")
