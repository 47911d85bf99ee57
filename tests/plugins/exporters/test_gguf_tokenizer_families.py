"""Tokenizers as families publish them: recognized by what they do, and proved in llama.cpp itself."""

import ast
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gguf_tokenizers import BYTE_LEVEL, SENTENCEPIECE, SIZE, TEKKEN, byte_level, sentencepiece
from tokenizers import AddedToken
from transformers import AutoTokenizer

from edgerazor.plugins.exporters.gguf.tokenizer import TokenizerKeys, describe_tokenizer
from edgerazor.plugins.exporters.gguf.tokenizer_proof import prove_tokenizer

pytest.importorskip("llama_cpp")
pytestmark = pytest.mark.llamacpp
ROWS = SIZE + 300
PRE = "tokenizer.ggml.pre"


def described(tokenizer: Any, folder: Path) -> TokenizerKeys:
    tokenizer.save_pretrained(folder)
    return describe_tokenizer(folder, {}, ROWS)


@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_byte_level_tokenizers_give_equal_ids(name: str, tmp_path: Path) -> None:
    proved = prove_tokenizer(tmp_path, described(byte_level(name), tmp_path), tolerant=False)
    assert proved.problems == () and proved.keys[PRE] == BYTE_LEVEL[name]
    assert not any("written in another way" in note for note in proved.notes)


@pytest.mark.parametrize("name", SENTENCEPIECE)
def test_sentencepiece_tokenizers_give_equal_ids(name: str, tmp_path: Path) -> None:
    found = described(sentencepiece(name), tmp_path)
    proved = prove_tokenizer(tmp_path, found, tolerant=False)
    assert proved.problems == () and proved.keys["tokenizer.ggml.model"] == "llama"
    assert proved.keys["tokenizer.ggml.add_space_prefix"] is (name == "Llama 2, Mistral 7B")


def test_what_llama_cpp_splits_differently_is_refused_with_the_first_difference(tmp_path: Path) -> None:
    """llama.cpp's tekken takes combining marks for signs."""
    tokenizer = byte_level(TEKKEN)
    found = described(tokenizer, tmp_path)
    problem = prove_tokenizer(tmp_path, found, tolerant=False).problems[0]
    assert "in llama.cpp (pre-tokenizer 'tekken'); set tokenizer_differences to note" in problem
    tolerated = prove_tokenizer(tmp_path, found, tolerant=True)
    assert tolerated.problems == () and any("llama.cpp finds other tokens in" in note for note in tolerated.notes)


@pytest.mark.parametrize("choices", [("gpt-2", "tekken"), ("tekken", "gpt-2"), ("no such name", "tekken")])
def test_the_closest_of_several_splits_is_taken(choices: tuple[str, ...], tmp_path: Path) -> None:
    """A name that this llama.cpp does not know is none of them."""
    found = replace(described(byte_level(TEKKEN), tmp_path), choices=choices)
    tolerated = prove_tokenizer(tmp_path, found, tolerant=True)
    assert tolerated.problems == () and tolerated.keys[PRE] == "tekken"
    assert sum("(pre-tokenizer 'tekken')" in note for note in tolerated.notes) == 1
    (problem,) = prove_tokenizer(tmp_path, found, tolerant=False).problems
    assert "(pre-tokenizer 'tekken'); set tokenizer_differences to note" in problem


@pytest.mark.parametrize("tolerant", [True, False])
def test_a_tokenizer_that_llama_cpp_cannot_load_is_refused(tolerant: bool, tmp_path: Path) -> None:
    found = replace(described(byte_level("GPT-2"), tmp_path), choices=("no such name", "nor this"))
    assert prove_tokenizer(tmp_path, found, tolerant=tolerant).problems == (
        "this llama.cpp cannot load the tokenizer (pre-tokenizer 'no such name' or 'nor this')",
    )


def test_the_difference_names_text_position_and_both_tokens(tmp_path: Path) -> None:
    tokenizer = byte_level("Qwen2, Qwen3")
    wrong = replace(described(tokenizer, tmp_path), choices=("gpt-2",))
    problem = prove_tokenizer(tmp_path, wrong, tolerant=False).problems[0]
    text = str(ast.literal_eval(problem.partition("; in ")[2].partition(" token ")[0]))
    ids = tokenizer(text)["input_ids"]
    position = int(problem.partition(" token ")[2].split()[0])
    assert f"token {position} is {ids[position]} {tokenizer.convert_ids_to_tokens(ids[position])!r}" in problem


def test_the_same_split_written_differently_is_found_by_what_it_does(tmp_path: Path) -> None:
    folder, tokenizer = tmp_path, byte_level("OLMo 2")
    tokenizer.save_pretrained(folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    pattern = content["pre_tokenizer"]["pretokenizers"][0]["pattern"]
    pattern["Regex"] = pattern["Regex"].replace(r"\p{N}]?\p{L}+", r"\p{N}]?+\p{L}+")
    (folder / "tokenizer.json").write_text(json.dumps(content))
    found = describe_tokenizer(folder, {}, ROWS)
    assert found.choices[0] == "dbrx" and any(note.endswith("texts as dbrx does") for note in found.notes)
    assert prove_tokenizer(folder, found, tolerant=False).problems == ()


def test_whole_words_matter_where_merges_do_not_make_every_token(tmp_path: Path) -> None:
    """A word that no merge makes is one token for llama-bpe, and never for dbrx."""
    byte_level("Llama 3, SmolLM3").save_pretrained(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    merges = content["model"]["merges"]
    made = ["".join(pair) for pair in merges]
    parts = {part for pair in merges for part in pair}
    word = next(token for token in reversed(made) if token[1:].isalpha() and token[0] == "Ġ" and token not in parts)
    content["model"]["merges"] = [pair for pair in merges if "".join(pair) != word]
    for whole, pre in ((True, "llama-bpe"), (False, "dbrx")):
        content["model"]["ignore_merges"] = whole
        (tmp_path / "tokenizer.json").write_text(json.dumps(content))
        found = describe_tokenizer(tmp_path, {}, ROWS)
        assert found.choices == (pre,)
        assert prove_tokenizer(tmp_path, found, tolerant=False).problems == ()
        tokens = AutoTokenizer.from_pretrained(tmp_path).tokenize(word.replace("Ġ", " "))
        assert (tokens == [word]) is whole


def test_a_tokenizer_that_transformers_cannot_load_is_refused(tmp_path: Path) -> None:
    found = described(byte_level("GPT-2"), tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    assert "no usable tokenizer: " in prove_tokenizer(tmp_path, found, tolerant=False).problems[0]


def test_special_tokens_that_no_row_stands_for_are_left_out(tmp_path: Path) -> None:
    """Gemma 3 without images has a token for them one behind its last row."""
    tokenizer = byte_level("GPT-2")
    tokenizer.add_tokens(AddedToken("<image>", special=True))
    tokenizer.save_pretrained(tmp_path)
    rows = len(tokenizer) - 1
    found = prove_tokenizer(tmp_path, describe_tokenizer(tmp_path, {}, rows), tolerant=False)
    assert found.problems == () and len(found.keys["tokenizer.ggml.tokens"]) == rows
    assert "special tokens without a row in the embedding are left out: <image>" in found.notes
