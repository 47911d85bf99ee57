"""A run whose chat template prints the date: resumed, cached and evaluated with the date it was begun on."""

import datetime
import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from edgerazor.core.registry import Registry
from edgerazor.core.resolved_recipe import write_resolved_recipe
from edgerazor.data import load_data
from edgerazor.distill.teacher_cache import TeacherCache, cache_teacher
from edgerazor.errors import DataError
from edgerazor.models.load import Models
from edgerazor.schemas.recipe import Recipe, load_recipe
from edgerazor.training.date import with_run_date
from edgerazor.training.resume import check_resumable
from tests.runs import recipe, save_model

TEMPLATE = "{{ strftime_now('%d %b %Y') }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"


def dated(folder: Path, registry: Registry, **data: str) -> Recipe:
    """A recipe of dialogues, with a template that prints the date."""
    if not (folder / "model").exists():
        save_model(folder / "model")
        words = AutoTokenizer.from_pretrained(folder / "model")
        words.chat_template = TEMPLATE
        words.save_pretrained(folder / "model")
        dialogue = [{"role": "user", "content": "def f"}, {"role": "assistant", "content": "return x * 3"}]
        (folder / "data.jsonl").write_text("".join(json.dumps({"messages": dialogue}) + "\n" for _ in range(8)))
    content = recipe(
        folder,
        distillation={"losses": [{"name": "forward_kl"}]},
        data={"sources": str(folder / "data.jsonl"), "sequence_length": 64, **data},
    )
    return load_recipe(content, registry=registry)


def test_a_run_is_resumed_with_the_date_it_was_begun_on(tmp_path: Path, registry: Registry) -> None:
    asked = dated(tmp_path, registry)
    begun = dated(tmp_path, registry, date="2024-02-29")
    write_resolved_recipe(begun, tmp_path / "recipe.yaml", registry=registry)
    resumed = with_run_date(asked, Models(asked.model, registry), tmp_path / "recipe.yaml")
    assert resumed == begun
    check_resumable(resumed, tmp_path / "recipe.yaml", registry=registry)
    today = with_run_date(asked, Models(asked.model, registry), None)
    assert today.data is not None and today.data.date is not None
    assert with_run_date(begun, Models(begun.model, registry), None) == begun


def test_a_cache_keeps_its_date_and_gives_it_to_the_run(tmp_path: Path, registry: Registry) -> None:
    folder = tmp_path / "cache"
    cache_teacher(dated(tmp_path, registry, date="2024-02-29"), registry=registry, output=folder, top_k=4)
    assert TeacherCache(folder).manifest.date == datetime.date(2024, 2, 29)
    again = cache_teacher(dated(tmp_path, registry), registry=registry, output=folder, top_k=4)
    assert again.kept_shards == 1
    plain = dated(tmp_path, registry)
    section = plain.distillation.model_copy(update={"teacher_cache": str(folder)})
    run = with_run_date(plain.model_copy(update={"distillation": section}), Models(plain.model, registry), None)
    assert run.data.date == datetime.date(2024, 2, 29)
    rows = load_data(run.data, AutoTokenizer.from_pretrained(tmp_path / "model")).train
    TeacherCache(folder).check_rows(rows, date=run.data.date)
    with pytest.raises(DataError, match=r"was told the date 2024-02-29, and the recipe's data\.date is 2024-03-01"):
        TeacherCache(folder).check_rows(rows, date=datetime.date(2024, 3, 1))
