"""The program that `docs/guide/recipes.md` gives for making data files makes files that a recipe can read."""

import json
import re
from pathlib import Path
from typing import Any

import datasets
import pytest

from edgerazor.data.dialogue import read_dialogue

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "recipes.md"
ROW = {"id": 1, "conversations": [{"from": "human", "value": "Who {are} you?"}, {"from": "gpt", "value": "A model."}]}


def test_the_files_hold_dialogues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    asked: list[Any] = []

    def load_dataset(name: str, subset: str, *, split: str) -> datasets.Dataset:
        asked.append((name, subset, split))
        return datasets.Dataset.from_list([ROW])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    exec(compile(program, str(PAGE), "exec"), {})
    assert {(name, split) for name, _, split in asked} == {("BAAI/Infinity-Instruct", "train")}
    found = {}
    for file in (tmp_path / "data").iterdir():
        (row,) = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        assert set(row) == {"messages"}
        found[file.stem] = [message["content"] for message in read_dialogue(row, "messages", file.name).messages]
    plain = ["Who {are} you?", "A model."]
    assert found == {
        "ii_7M_instruct": plain,
        "ii_gen_1.4M_instruct": plain,
        "ii_1.5M_base": ["Who {are} you?\nAnswer:", " A model."],
    }


def test_every_recipe_and_every_file_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for recipe in (PAGE.parents[2] / "recipes").glob("*.yaml"):
        assert f"| `{recipe.stem}` |" in text
        for file in re.findall(r"data/([\w.]+\.jsonl)", recipe.read_text(encoding="utf-8")):
            assert f"| `{file}` |" in text
