"""Files as people have them: names with any character, columns that differ from row to row, other layouts, bad rows."""

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from families import FAMILIES
from small_tokenizers import build, learned_runs

from edgerazor.data import Data, load_data
from edgerazor.errors import DataError, PlanError
from edgerazor.models.positions import check_positions
from edgerazor.schemas.data import DataSection
from edgerazor.schemas.model import ModelSection

MESSAGES = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
ANSWER = "So.<|im_end|>"


def load(path: str | Path, sources: dict[str, Any] | None = None, **section: Any) -> Data:
    family = FAMILIES["ChatML"]
    tokenizer = build("byte-level", family.special, None, family.template)
    chosen = {"sources": [{"path": str(path), **(sources or {})}], "packing": False, **section}
    return load_data(DataSection(**chosen), tokenizer)


def answers(path: str | Path, **source: Any) -> list[str]:
    """What is learned of every row, in the order of the rows' texts."""
    family = FAMILIES["ChatML"]
    tokenizer = build("byte-level", family.special, None, family.template)
    rows = load(path, source).train
    return sorted("".join(learned_runs(tokenizer, row["input_ids"], row["labels"])) for row in rows)


def text_of(path: str | Path) -> str:
    """The first row as text, what is not learned included."""
    family = FAMILIES["ChatML"]
    tokenizer = build("byte-level", family.special, None, family.template)
    return str(tokenizer.decode(load(path).train[0]["input_ids"]))


def lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def said(text: str) -> dict[str, Any]:
    return {"messages": [MESSAGES[0], {"role": "assistant", "content": text}]}


NAMES = ["train[1]", "a*b", "what?", "c::d", "~x", "100%", "%20", "data [v1]", "{a,b}", "hf:x"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "txt", "folder", "saved"])
def test_a_path_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    for other in ("train1", "aXb", "whatX", "c", " "):
        (tmp_path / f"{other}.{kind}").write_bytes(lines([said("wrong")]))
    right = datasets.Dataset.from_list([said("right")])
    path = tmp_path / (name if kind in ("folder", "saved") else f"{name}.{kind}")
    if kind == "saved":
        right.save_to_disk(tmp_path / "plain")
        (tmp_path / "plain").rename(path)
    elif kind == "folder":
        path.mkdir()
        (path / f"{name}.jsonl").write_bytes(lines([said("right")]))
    elif kind == "parquet":
        right.to_parquet(str(tmp_path / "plain"))
        (tmp_path / "plain").rename(path)
    else:
        content = {
            "jsonl": lines([said("right")]),
            "json": json.dumps([said("right")]).encode(),
            "txt": b"to the right",
        }
        path.write_bytes(content[kind])
    for written in (path, path.name):
        (learned,) = answers(written)
        assert "right" in learned


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.jsonl").write_bytes(lines([said("So.")]))
    assert answers("~/a.jsonl") == [ANSWER]
    assert ModelSection(name_or_path="~/m", teacher="~/t").teacher_name == str(tmp_path / "t")
    assert ModelSection(name_or_path="~/m").name_or_path == str(tmp_path / "m")


def test_columns_that_are_not_read_may_hold_anything(tmp_path: Path) -> None:
    strange = {"id": 1, "source": "x", "model": "y", "system_prompt": "z"}
    rows = [
        {**strange, **said("one"), "note": None},
        {**strange, **said("two"), "id": "b", "note": {"a": [1]}},
        {**said("three"), "late": 1.5},
        *({**said("four"), "note": None} for _ in range(3)),
    ]
    (tmp_path / "a.jsonl").write_bytes(lines(rows))
    assert len(answers(tmp_path / "a.jsonl")) == 6


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("kind", [".jsonl", ".json", ".txt", ".csv"])
def test_compressed_files(tmp_path: Path, kind: str, suffix: str) -> None:
    rows = {
        ".jsonl": lines([said("So.")]),
        ".json": json.dumps([said("So.")]).encode(),
        ".txt": b"xSo.",
        ".csv": b"prompt,response\nWhy?,So.\n",
    }
    path = tmp_path / f"a{kind}{suffix}"
    if suffix == ".gz":
        path.write_bytes(gzip.compress(rows[kind]))
    else:
        with pa.OSFile(str(path), "wb") as file, pa.CompressedOutputStream(file, "zstd") as stream:
            stream.write(rows[kind])
    assert [text[-len(ANSWER) :] for text in answers(path)] == [ANSWER]
    path = path.rename(path.with_suffix(suffix.upper()))
    assert [text[-len(ANSWER) :] for text in answers(path)] == [ANSWER]
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :]
    for damaged in [whole[:-9], flipped] if suffix == ".gz" else [whole[:-9]]:  # pyarrow's zstd has no checksum
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="cannot be read"):
            load(path)


def test_sharegpt(write_lines) -> None:
    calls = {"from": "function_call", "value": '{"name": "f", "arguments": {}}'}
    talk = [{"from": "human", "value": "Why?"}, calls, {"from": "observation", "value": "1"}]
    path = write_lines([{"conversations": [*talk, {"from": "gpt", "value": "So."}], "system": "Be kind."}])
    data = load(path)
    tokenizer = build("byte-level", FAMILIES["ChatML"].special, None, FAMILIES["ChatML"].template)
    text = tokenizer.decode(data.train[0]["input_ids"])
    assert text.startswith("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>")
    assert "<|im_start|>tool\n1<|im_end|>" in text and answers(path) == [f"<|im_end|>{ANSWER}"]


def test_text_parts_are_one_text(write_lines) -> None:
    parts = [{"type": "text", "text": "So"}, {"type": "text", "text": "."}]
    assert answers(write_lines([{"messages": [MESSAGES[0], {"role": "assistant", "content": parts}]}])) == [ANSWER]
    picture = [{"type": "image", "url": "x"}]
    with pytest.raises(DataError, match="message 2: 'content' has a part of type 'image'"):
        load(write_lines([{"messages": [MESSAGES[0], {"role": "assistant", "content": picture}]}], "b.jsonl"))


@pytest.mark.parametrize("names", [("prompt", "response"), ("prompt", "completion"), ("question", "answer")])
def test_prompt_and_response(tmp_path: Path, write_lines, names: tuple[str, str]) -> None:
    (tmp_path / "a.csv").write_text(f'id,{names[0]},{names[1]}\n1,"Why,\nso?",So.\n')
    assert answers(tmp_path / "a.csv") == [ANSWER]
    assert answers(write_lines([{names[0]: MESSAGES[:1], names[1]: MESSAGES[1:]}])) == [ANSWER]


def test_columns_of_other_names(tmp_path: Path) -> None:
    long = "word " * 40_000
    (tmp_path / "a.csv").write_text(f"frage,antwort\n{long},So.\n")
    data = load(tmp_path / "a.csv", {"field": "frage", "response": "antwort"}, sequence_length=200_000)
    assert len(data.train) == 1
    (tmp_path / "b.csv").write_text("prompt,response\nWhy?,So.,more\nWhy?\n")
    with pytest.raises(DataError, match="row 1: has more values; expected"):
        load(tmp_path / "b.csv")


def test_folders_as_on_the_hub(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name, text in (("train-00000-of-00002", "a"), ("train-00001-of-00002", "b"), ("test-00000-of-00001", "c")):
        datasets.Dataset.from_list([said(text)]).to_parquet(str(tmp_path / "data" / f"{name}.parquet"))
    (tmp_path / "dataset_infos.json").write_text("{}")
    assert answers(tmp_path, split="train") == ["a<|im_end|>", "b<|im_end|>"]
    assert answers(tmp_path, split="test") == ["c<|im_end|>"]
    with pytest.raises(DataError, match="holds the splits test, train; name one with `split`"):
        load(tmp_path)
    with pytest.raises(DataError, match="there is no split 'tran'; did you mean 'train'"):
        load(tmp_path, {"split": "tran"})


BAD = [b"{broken\n", lines([3]), lines([{"messages": [{"role": "usr", "content": "x"}]}]), lines([{"messages": None}])]


def test_all_bad_rows_are_counted_and_ten_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines([said("So.")]) + b"".join(BAD) * 3 + lines([said("So.")]))
    with pytest.raises(DataError) as caught:
        load(path)
    message = str(caught.value).splitlines()
    assert message[0].startswith(f"{path}: row 2: is no JSON") and message[1].startswith(f"{path}: row 3: is int")
    assert any(f"{path}: row 4, column 'messages': message 1: no role 'usr'" in line for line in message)
    assert len(message) == 12 and message[10] == "and 2 more"
    assert message[11] == "12 rows cannot be used; data.on_bad_row: skip leaves such rows out"


def test_bad_rows_are_left_out_when_asked_and_never_silently(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines([said("one"), said("two")]) + b"".join(BAD))
    with caplog.at_level(logging.WARNING):
        data = load(path, on_bad_row="skip")
    assert len(data.train) == 2 and data.bad_rows == 4
    assert "4 rows left out" in caplog.text and "row 3: is no JSON" in caplog.text
    path.write_bytes(b"".join(BAD[:1]))
    with pytest.raises(DataError, match="no row can be used"):
        load(path, on_bad_row="skip")


class Config:
    """As much of a configuration as is looked at."""

    def __init__(self, **values: Any):
        self.__dict__.update(values)


def test_rows_longer_than_the_positions() -> None:
    assert check_positions(Config(max_position_embeddings=64), 64, "x") is None
    assert check_positions(Config(), 10**6, "x") is None
    scaled = Config(max_position_embeddings=64, rope_parameters={"rope_type": "yarn", "factor": 4.0})
    assert "scaled (yarn)" in str(check_positions(scaled, 65, "the longest row has"))
    plain = Config(max_position_embeddings=64, rope_parameters={"rope_type": "default"})
    with pytest.raises(PlanError, match="the longest row has 65 tokens, the model 64 positions"):
        check_positions(plain, 65, "the longest row has")


@pytest.mark.parametrize("answer", ["[2, 3, 5]", "[]", '[{"role": "assistant", "content": "yo"}]', "{}"])
def test_an_answer_that_is_json_is_text(write_lines, answer: str) -> None:
    (text,) = answers(write_lines([{"prompt": "Which?", "response": answer}]))
    assert answer in text


def test_a_system_column_stands_beside_any_dialogue(write_lines) -> None:
    talk = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    rows = [{"system": "Be kind.", "messages": talk}]
    assert "Be kind." in text_of(write_lines(rows))
    assert "Be kind." in text_of(write_lines([{"system": "Be kind.", "question": "Why?", "answer": "So."}], "b.jsonl"))
    own = [{"role": "system", "content": "Be brief."}, *talk]
    assert "Be kind." not in text_of(write_lines([{"system": "Be kind.", "messages": own}], "c.jsonl"))
    with pytest.raises(DataError, match="column 'system': holds int; expected text"):
        load(write_lines([{"system": 7, "messages": talk}], "d.jsonl"))


DEEP = "[" * 100_000 + "]" * 100_000
UNUSABLE = {
    "nested too deep": DEEP,
    "a speaker that is a list": json.dumps({"conversations": [{"from": ["a"], "value": "x"}]}),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_whatever_a_row_holds_it_is_a_bad_row(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.jsonl"
    good = json.dumps({"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]})
    path.write_text(f"{good}\n{UNUSABLE[name]}\n")
    with pytest.raises(DataError, match="row 2"):
        load(path)
    assert load(path, on_bad_row="skip").bad_rows == 1


def test_an_empty_file_is_refused_whatever_was_bad_before(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("no json\n" + json.dumps({"text": "So."}) + "\n")
    (tmp_path / "b.jsonl").write_text("\n")
    with pytest.raises(DataError, match=r"b\.jsonl: holds no rows"):
        load(tmp_path, on_bad_row="skip")


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_row_of_text_is_parsed_once(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [f"row {number} é" for number in range(100)]
    lines = {".jsonl": [json.dumps({"text": row}) for row in rows], ".csv": ["text", *rows]}[suffix]
    path = tmp_path / f"data{suffix}"
    path.write_text("\n".join(lines), encoding="utf-8")
    parsed: list[str] = []
    monkeypatch.setattr(json, "loads", lambda text, loads=json.loads: parsed.append(text) or loads(text))
    assert load(path).usage.documents == (100,)
    assert sum(b"row" in bytes(text) for text in parsed if not isinstance(text, str)) == 100 * (suffix == ".jsonl")


@pytest.mark.parametrize("row", [{"text": "\ud83d"}, {"messages": [{"role": "user", "content": "\ud83d"}]}])
def test_half_a_surrogate_pair_is_a_bad_row(row: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text(f"{json.dumps({next(iter(row)): MESSAGES})}\n{json.dumps(row)}\n")
    with pytest.raises(DataError, match="row 2: holds half of a surrogate pair, which is no character"):
        load(tmp_path / "data.jsonl")
