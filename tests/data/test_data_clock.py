"""A template that prints the date: every run, cache and evaluation sees one date, whatever the day."""

import datetime
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from families import FAMILIES
from pydantic import ValidationError
from small_tokenizers import build

from edgerazor.data import clock, load_data
from edgerazor.data.clock import fix_date
from edgerazor.schemas.data import DataSection

DIALOGUE = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
DAY = datetime.date(2024, 2, 29)


def text_of(family: str, path: str, **section: Any) -> str:
    chosen = FAMILIES[family]
    tokenizer = build("byte-level", chosen.special, chosen.bos, chosen.template)
    (row,) = load_data(DataSection(sources=path, **section), tokenizer).train
    return tokenizer.decode(row["input_ids"])


@pytest.mark.parametrize(("family", "written"), [("Llama 3.1", "29 Feb 2024"), ("Granite", "February 29, 2024")])
def test_the_date_of_the_recipe_is_written(write_lines, family: str, written: str) -> None:
    path = write_lines([{"messages": DIALOGUE}])
    assert written in text_of(family, path, date="2024-02-29")
    assert written in text_of(family, path, date=yaml.safe_load("2024-02-29"))


def test_variables_reach_the_template(write_lines) -> None:
    path = write_lines([{"messages": DIALOGUE}])
    assert "26 Jul 2024" in text_of("Llama 3.1", path, chat_template_kwargs={"date_string": "26 Jul 2024"})


def test_a_template_that_reads_the_clock_is_named_and_gets_one_date(caplog: pytest.LogCaptureFixture) -> None:
    section = DataSection(sources="a.jsonl")
    for name, family in FAMILIES.items():
        tokenizer = build("byte-level", family.special, family.bos, family.template)
        caplog.clear()
        fixed = fix_date(section, tokenizer)
        asks = name in ("Llama 3.1", "Granite")
        assert (fixed.date is not None) == asks == ("writes the date" in caplog.text)
        assert fix_date(section, tokenizer, earlier=DAY).date == (DAY if asks else None)
        assert fix_date(fixed, tokenizer, earlier=DAY) == fixed
    assert DataSection.model_validate(fixed.model_dump(mode="json")) == fixed


def test_a_fixed_date_makes_the_same_rows_on_another_day(write_lines, monkeypatch: pytest.MonkeyPatch) -> None:
    path, texts = write_lines([{"messages": DIALOGUE}]), []
    tokenizer = build("byte-level", FAMILIES["Granite"].special, FAMILIES["Granite"].bos, FAMILIES["Granite"].template)
    fixed = fix_date(DataSection(sources=path), tokenizer)
    for day in (datetime.date(2031, 1, 2), datetime.date(2032, 3, 4)):
        monkeypatch.setattr(clock, "datetime", SimpleNamespace(date=SimpleNamespace(today=lambda day=day: day)))
        (row,) = load_data(fixed, tokenizer).train
        texts.append(tokenizer.decode(row["input_ids"]))
        assert day.strftime("%B %d, %Y") in text_of("Granite", path)
    assert texts[0] == texts[1]


@pytest.mark.parametrize("name", ["messages", "tools", "add_generation_prompt", "self"])
def test_variables_that_are_set_for_each_dialogue_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name}: is set for each dialogue"):
        DataSection(sources="a.jsonl", chat_template_kwargs={name: True})
