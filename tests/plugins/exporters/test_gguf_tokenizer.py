"""Tokenizer keys: what is recognized, what it becomes, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from gguf_cases import byte_level_tokenizer, sentencepiece_tokenizer
from tokenizers import AddedToken, pre_tokenizers

from edgerazor.plugins.exporters.gguf.tokenizer import TokenizerKeys, describe_tokenizer, token_scores

UNKNOWN = (
    "this pre-tokenizer is unknown to the exporter; known: gpt-2, smollm, qwen2, llama-bpe, dbrx, qwen35, "
    "granite-embed-multi-97m, gpt-4o, tekken, deepseek-v3, sentencepiece"
)


def describe(tokenizer: Any, folder: Path, config: dict[str, Any] | None = None, rows: int = 320) -> TokenizerKeys:
    tokenizer.save_pretrained(folder)
    return describe_tokenizer(folder, config or {}, rows)


def edited(folder: Path, edit: Any) -> TokenizerKeys:
    content = json.loads((folder / "tokenizer.json").read_text())
    edit(content)
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return describe_tokenizer(folder, {}, 320)


@pytest.mark.parametrize(("qwen", "pre"), [(False, "gpt-2"), (True, "qwen2")])
def test_byte_level(qwen: bool, pre: str, tmp_path: Path) -> None:
    keys = describe(byte_level_tokenizer(qwen=qwen), tmp_path).keys
    assert (keys["tokenizer.ggml.model"], keys["tokenizer.ggml.pre"]) == ("gpt2", pre)
    assert keys["tokenizer.ggml.merges"][:3] == ["Ġ t", "h e", "Ġt he"]
    tokens, types = keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"]
    assert tokens[keys["tokenizer.ggml.padding_token_id"]] == "<|end|>"
    assert types[tokens.index("the" if "the" in tokens else "he")] == 1
    assert "tokenizer.ggml.bos_token_id" not in keys


def test_a_token_that_config_json_alone_names(tmp_path: Path) -> None:
    keys = describe(byte_level_tokenizer(), tmp_path, {"bos_token_id": 7, "eos_token_id": [3, 4]}).keys
    assert keys["tokenizer.ggml.bos_token_id"] == 7
    assert keys["tokenizer.ggml.tokens"][keys["tokenizer.ggml.eos_token_id"]] == "<|end|>"


def test_the_text_model_of_a_larger_one_names_its_tokens(tmp_path: Path) -> None:
    tokenizer = byte_level_tokenizer()
    tokenizer.eos_token = tokenizer.pad_token = None
    config = {"eos_token_id": None, "text_config": {"eos_token_id": [320, 7], "bos_token_id": 3, "pad_token_id": -1}}
    keys = describe(tokenizer, tmp_path, config).keys
    assert [keys.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos", "padding")] == [3, 7, None]


@pytest.mark.parametrize("name", ["<|im_end|>", "</s>", "<|repo_name|>", "<tool>"])
def test_tokens_that_llama_cpp_would_stop_at_make_the_file_name_the_ends(name: str, tmp_path: Path) -> None:
    tokenizer = byte_level_tokenizer()
    tokenizer.add_tokens([AddedToken(name, normalized=False)])
    keys = describe(tokenizer, tmp_path).keys
    ends = [tokenizer.convert_tokens_to_ids("<|end|>")]
    assert keys.get("edgerazor.stop_token_ids") == (None if name == "<tool>" else ends)


def test_sentencepiece(tmp_path: Path) -> None:
    found = describe(sentencepiece_tokenizer(), tmp_path)
    keys, tokens = found.keys, found.keys["tokenizer.ggml.tokens"]
    assert found.problems == () and keys["tokenizer.ggml.model"] == "llama" and keys["tokenizer.ggml.pre"] == "default"
    assert keys["tokenizer.ggml.token_type"][:5] == [2, 3, 3, 6, 6] and keys["tokenizer.ggml.bos_token_id"] == 1
    assert keys["tokenizer.ggml.add_bos_token"] is True and keys["tokenizer.ggml.add_space_prefix"] is True
    scores = dict(zip(tokens, keys["tokenizer.ggml.scores"], strict=True))
    made = ["\u2581t", "he", "\u2581the", "\u2581th", "in"]
    assert [scores[word] for word in made] == [0.0, -1.0, -2.0, -3.0, -4.0]


def test_metaspace_is_sentencepiece_too(tmp_path: Path) -> None:
    tokenizer = sentencepiece_tokenizer()
    backend = tokenizer.backend_tokenizer
    backend.normalizer = None
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="never", split=False)
    keys = describe(tokenizer, tmp_path).keys
    assert keys["tokenizer.ggml.model"] == "llama" and keys["tokenizer.ggml.add_space_prefix"] is False
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="first", split=False)
    first = describe(tokenizer, tmp_path)
    assert first.keys["tokenizer.ggml.add_space_prefix"] is True and "after a special token" in first.notes[1]
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="never", split=True)
    assert describe(tokenizer, tmp_path).problems == (UNKNOWN,)


def test_unknown_splits_are_refused(tmp_path: Path) -> None:
    describe(byte_level_tokenizer(qwen=True), tmp_path)

    def other_regex(content: dict[str, Any]) -> None:
        pattern = content["pre_tokenizer"]["pretokenizers"][0]["pattern"]
        pattern["Regex"] = r"\d\d|" + pattern["Regex"]

    assert edited(tmp_path, other_regex).problems == (UNKNOWN,)
    describe(byte_level_tokenizer(), tmp_path)
    assert edited(tmp_path, lambda saved: saved["pre_tokenizer"].update(add_prefix_space=True)).problems == (UNKNOWN,)
    describe(byte_level_tokenizer(), tmp_path)
    assert edited(tmp_path, lambda saved: saved.update(normalizer={"type": "Lowercase"})).problems == (UNKNOWN,)
    assert edited(tmp_path, lambda saved: saved["model"].update(type="WordPiece")).problems == (UNKNOWN,)


def test_what_else_is_refused(tmp_path: Path) -> None:
    describe(byte_level_tokenizer(), tmp_path)
    assert "embedding has 260 rows" in describe(byte_level_tokenizer(), tmp_path, rows=260).problems[0]
    assert "has no merges" in edited(tmp_path, lambda saved: saved["model"].update(merges=[])).problems[0]
    describe(byte_level_tokenizer(), tmp_path)
    strips = edited(tmp_path, lambda saved: saved["added_tokens"][0].update(lstrip=True)).problems
    assert strips == ("tokenizer.json: added token '<tool>' strips spaces or matches whole words only",)
    describe(sentencepiece_tokenizer(), tmp_path)
    special = {"SpecialToken": {"id": "<unk>", "type_id": 0}}
    around = edited(tmp_path, lambda saved: saved["post_processor"]["single"].append(special)).problems
    assert around == ("tokenizer.json: the post-processor puts ['<s>', '<unk>'] around texts; known: bos and eos",)
    assert "is not what a tokenizer saves" in edited(tmp_path, lambda saved: saved["model"].update(vocab=3)).problems[0]
    for damaged in ("{", "[" * 100_000):
        (tmp_path / "tokenizer.json").write_text(damaged)
        assert "tokenizer.json: is not valid JSON: " in describe_tokenizer(tmp_path, {}, 320).problems[0]


def test_merges_that_sentencepiece_would_not_follow() -> None:
    tokens = {"a", "b", "c", "ab", "bc", "abc"}
    assert token_scores(tokens, [("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc")])[1] == ""
    assert "'abc': two tokens that make it up" in token_scores(tokens, [("a", "b"), ("b", "c"), ("ab", "c")])[1]
    torn = [("ab", "c"), ("a", "b"), ("a", "bc"), ("b", "c")]
    assert "'abc': its merges do not stand together" in token_scores(tokens, torn)[1]
    assert "a character that is no token" in token_scores({"a", "ax"}, [("a", "x")])[1]


def test_an_incomplete_merge_list_is_refused(tmp_path: Path) -> None:
    found = describe(sentencepiece_tokenizer([("h", "e"), ("t", "h"), ("t", "he")]), tmp_path)
    assert "'the': two tokens that make it up have no merge" in found.problems[0]
