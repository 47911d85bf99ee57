"""Local files of every kind become documents; what cannot be read is named."""

import json
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
from pydantic import ValidationError

from edgerazor.data import load_data
from edgerazor.data.bad_rows import BadRows
from edgerazor.data.sources import Documents
from edgerazor.data.sources import load_documents as read_documents
from edgerazor.errors import DataError
from edgerazor.schemas.data import DataSection, Source

TEXTS = ["first document", "second document\nof two lines", "dritter Text: é"]
DIALOGUE = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "world"}]


def load_documents(source: Source) -> Documents:
    bad = BadRows()
    documents = read_documents(source, bad)
    bad.settle()
    return documents


def values_of(source: Source):
    documents = load_documents(source)
    batches = documents.batches(np.arange(len(documents)), 2)
    return [row[column.field] for column, _, rows in batches for row in rows]


def write_json(path: Path, rows):
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def write_parquet(path: Path, rows):
    datasets.Dataset.from_list(rows).to_parquet(str(path))


def write_jsonl(path: Path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "write"), [("a.jsonl", write_jsonl), ("a.json", write_json), ("a.parquet", write_parquet)]
)
@pytest.mark.parametrize(("field", "values"), [("text", TEXTS), ("messages", [DIALOGUE, DIALOGUE[:2]])])
def test_file_kinds_and_formats(tmp_path, name, write, field, values):
    write(tmp_path / name, [{field: value, "other": 1} for value in values])
    source = Source(path=str(tmp_path / name))
    assert values_of(source) == values
    assert load_documents(source).columns[0].format == field


def test_text_file_is_one_document_and_keeps_its_lines(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\ntwo\n", encoding="utf-8")
    assert values_of(Source(path=str(tmp_path / "a.txt"))) == ["one\n\ntwo\n"]


def test_folder_reads_known_files_in_order(tmp_path):
    (tmp_path / "part" / ".hidden").mkdir(parents=True)
    write_jsonl(tmp_path / "part" / "2.jsonl", [{"text": "c"}])
    write_jsonl(tmp_path / "part" / "1.jsonl", [{"text": "a"}, {"text": "b"}])
    write_jsonl(tmp_path / "part" / ".hidden" / "0.jsonl", [{"text": "hidden"}])
    (tmp_path / "part" / "x.txt").write_text("d", encoding="utf-8")
    (tmp_path / "README.md").write_text("about", encoding="utf-8")
    assert values_of(Source(path=str(tmp_path))) == ["a", "b", "c", "d"]


def test_saved_dataset_and_its_splits(tmp_path):
    one = datasets.Dataset.from_dict({"body": TEXTS})
    one.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": one, "test": one.select([0])}).save_to_disk(tmp_path / "two")
    assert values_of(Source(path=str(tmp_path / "one"), field="body")) == TEXTS
    assert values_of(Source(path=str(tmp_path / "two"), field="body", split="test")) == TEXTS[:1]
    with pytest.raises(DataError, match="holds the splits train, test; name one"):
        load_documents(Source(path=str(tmp_path / "two"), field="body"))
    with pytest.raises(DataError, match="no split 'tset'; did you mean 'test'"):
        load_documents(Source(path=str(tmp_path / "two"), field="body", split="tset"))


@pytest.mark.parametrize("name", ["../one/data-00000-of-00001.arrow", "{}/one/data-00000-of-00001.arrow", ".."])
def test_a_saved_dataset_names_files_inside_its_folder_alone(tmp_path, name):
    datasets.Dataset.from_dict({"text": TEXTS}).save_to_disk(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    state = json.loads((tmp_path / "two" / "state.json").read_text(encoding="utf-8"))
    state["_data_files"] = [{"filename": name.format(tmp_path)}]
    (tmp_path / "two" / "state.json").write_text(json.dumps(state), encoding="utf-8")
    (tmp_path / "three").mkdir()
    (tmp_path / "three" / "dataset_dict.json").write_text(json.dumps({"splits": ["../one"]}), encoding="utf-8")
    for folder in ("two", "three"):
        with pytest.raises(DataError, match="is not the name of a file in this folder"):
            load_documents(Source(path=str(tmp_path / folder)))


def test_empty_rows_are_counted(write_lines):
    documents = load_documents(Source(path=write_lines([{"text": "a"}, {"text": ""}, {"text": " \n"}, {"text": "b"}])))
    assert (len(documents), documents.empty) == (2, 2)


@pytest.mark.parametrize(
    ("rows", "source", "message"),
    [
        (
            [{"txt": "a"}],
            {},
            "no column 'messages' or 'text'; name one with `field` \\(columns: 'txt'\\), and one of answers",
        ),
        ([{"body": "a"}], {"field": "boddy"}, "no column 'boddy'; did you mean 'body'"),
        ([{"text": "a", "messages": DIALOGUE}], {}, "has the columns 'messages', 'text'; name one with `field`"),
        ([{"text": "a"}, {"text": None}], {}, "row 2: column 'text' is null"),
        ([{"text": ""}, {"text": "  "}], {}, "no row holds any text"),
        ([{"text": 3}], {}, "column 'text' holds int values"),
        ([{"text": DIALOGUE}], {"format": "text"}, "row 1: column 'text' holds list; expected text"),
        ([{"text": "a"}], {"split": "train"}, "split 'train' was asked for"),
    ],
)
def test_column_errors(write_lines, rows, source, message):
    with pytest.raises(DataError, match=message):
        load_documents(Source(path=write_lines(rows), **source))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bad.jsonl", b'{"text": "a"}\n{"text": }\n', "row 2: is no JSON: Expecting value"),
        ("empty.jsonl", b"", "the file is empty"),
        ("blank.jsonl", b"\n\n", "holds no rows"),
        ("bad.parquet", b"no parquet", "cannot be read as Parquet"),
        ("latin.txt", b"\xff\xfe\xfa", "cannot be read as UTF-8"),
        ("data.tsv", b"text\na\n", "cannot read files that end in '.tsv'; expected .jsonl"),
    ],
)
def test_file_errors(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_documents(Source(path=str(tmp_path / name)))


def test_missing_file_names_its_neighbour(tmp_path, write_lines):
    write_lines([{"text": "a"}], "training.jsonl")
    with pytest.raises(DataError, match=r"no such file or folder; did you mean 'training\.jsonl'"):
        load_documents(Source(path=str(tmp_path / "trainig.jsonl")))
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match="holds no file to train on"):
        load_documents(Source(path=str(tmp_path / "nothing")))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([], "row 2, column 'messages': holds an empty list"),
        (None, "row 2, column 'messages': holds nothing"),
        ([{"role": "user"}], "row 2, column 'messages': message 1: has no 'content' \\(keys: 'role'\\)"),
        (
            [{"role": "user", "content": "a"}, {"role": "gpt", "content": "b"}],
            "message 2: no role 'gpt'; expected one of",
        ),
        ([{"role": "asistant", "content": "b"}], "no role 'asistant'; did you mean 'assistant'"),
        ([{"role": "user", "content": "a"}], "no message is the assistant's"),
    ],
)
def test_dialogue_errors_name_the_row(write_lines, tokenizer, row, message):
    path = write_lines([{"messages": DIALOGUE}, {"messages": row}])
    with pytest.raises(DataError, match=message):
        load_data(DataSection(sources=path), tokenizer)


def test_nothing_is_left_behind_or_fetched_or_printed(tmp_path, monkeypatch, capfd):
    def refuse(*_):
        raise OSError("network")

    for folder in ("cache", "temporary", "data"):
        (tmp_path / folder).mkdir()
    write_jsonl(tmp_path / "data" / "a.jsonl", [{"text": text} for text in TEXTS])
    write_parquet(tmp_path / "data" / "b.parquet", [{"text": text} for text in TEXTS])
    (tmp_path / "data" / "c.txt").write_text(TEXTS[0], encoding="utf-8")
    datasets.Dataset.from_dict({"text": TEXTS}).save_to_disk(tmp_path / "saved")
    before = sorted(tmp_path.rglob("*"))
    capfd.readouterr()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr("socket.socket.connect", refuse)
    assert [len(values_of(Source(path=str(tmp_path / name)))) for name in ("data", "saved")] == [7, 3]
    assert sorted(tmp_path.rglob("*")) == before
    assert capfd.readouterr() == ("", "")
    assert not datasets.are_progress_bars_disabled()


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        ("a.jsonl", "'a.jsonl' is trained on and held out"),
        ([{"path": "b.jsonl", "ratio": 0.5}], "held-out source 'b.jsonl' has a ratio"),
        ([], "held_out is an empty list"),
        (1, "expected a share between 0 and 1"),
    ],
)
def test_held_out_is_checked(held_out, message):
    with pytest.raises(ValidationError, match=message):
        DataSection(sources="a.jsonl", held_out=held_out)
    assert DataSection(sources="a.jsonl", held_out="b.jsonl").held_out == (Source(path="b.jsonl"),)
