"""`check_recipe` finds each model by its name and its own revision."""

from pathlib import Path
from typing import Any

import pytest

from edgerazor.core.registry import Registry
from edgerazor.errors import RecipeError
from edgerazor.recipes.check import CheckResult, check_recipe
from tests.hub import offline_cache
from tests.runs import recipe, save_data, save_model, write_recipe


@pytest.fixture
def check(tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`check(student=revision, teacher=revision, **model)`: of models in the cache at these revisions alone."""
    cache = offline_cache(tmp_path / "cache", monkeypatch)
    save_data(tmp_path / "data.jsonl")
    names = {"student": "somebody/student", "teacher": "somebody/teacher"}

    def check(cached: dict[str, str], sizes: dict[str, int] | None = None, **model: Any) -> CheckResult:
        for who, revision in cached.items():
            values = (sizes or {}) if who == "teacher" else {}
            cache(names[who], revision, save_model(tmp_path / who, **values))
        save_model(tmp_path / "model")
        content = recipe(tmp_path, model={"name_or_path": names["student"], "family": "qwen3", **model})
        return check_recipe(write_recipe(tmp_path / "recipe.yaml", content), registry=registry)

    return check


def test_a_student_at_a_revision_is_checked_as_its_own_teacher_too(
    check: Any, tmp_path: Path, registry: Registry
) -> None:
    assert check({"student": "v1"}, revision="v1").plan is not None
    many = {"name": "fixed", "layers": [0, 7]}
    content = recipe(tmp_path, model={"name_or_path": "somebody/student", "revision": "v1"})
    content["distillation"]["losses"][1]["layers"] = many
    with pytest.raises(RecipeError, match="layer 7 is out of range"):
        check_recipe(write_recipe(tmp_path / "recipe.yaml", content), registry=registry)


def test_the_revision_of_the_student_is_not_looked_for_in_the_teacher(check: Any) -> None:
    result = check({"student": "v1", "teacher": "main"}, revision="v1", teacher="somebody/teacher")
    assert result.plan is not None and result.notes == ()


def test_a_teacher_that_does_not_fit_is_found_at_its_own_revision(check: Any) -> None:
    with pytest.raises(RecipeError, match="somebody/teacher and student somebody/student have vocabularies of 400"):
        check({"student": "v1", "teacher": "main"}, {"vocabulary": 400}, revision="v1", teacher="somebody/teacher")


def test_a_teacher_at_the_revision_of_the_student_alone_is_not_here(check: Any) -> None:
    result = check({"student": "v1", "teacher": "v1"}, revision="v1", teacher="somebody/teacher")
    assert any(note.startswith("model.teacher: somebody/teacher is not on this machine") for note in result.notes)


def test_rows_longer_than_the_positions_are_a_fault_or_a_note(tmp_path: Path, registry: Registry) -> None:
    content = recipe(tmp_path)
    content["data"]["sequence_length"] = 129
    path = write_recipe(tmp_path / "recipe.yaml", content)
    with pytest.raises(RecipeError, match=r"data\.sequence_length: 129 tokens, the model 128 positions"):
        check_recipe(path, registry=registry)
    scaled = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 1e4}
    save_model(tmp_path / "model", rope_parameters=scaled)
    assert any("its rotation is scaled (yarn)" in note for note in check_recipe(path, registry=registry).notes)
