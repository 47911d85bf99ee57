"""What onnxruntime-genai makes of texts, beside what Transformers makes of them."""

import shutil
from pathlib import Path

import pytest
from gguf_tokenizers import BYTE_LEVEL, SENTENCEPIECE, byte_level, sentencepiece
from transformers import PreTrainedTokenizerFast

from edgerazor.plugins.exporters.onnx.folder import GENAI
from edgerazor.plugins.exporters.onnx.genai_tokens import genai_token_notes
from edgerazor.plugins.exporters.probe_texts import probe_texts

pytestmark = pytest.mark.genai
# The settings of a folder that version 0.1 wrote: a tokenizer needs no model to be read.
SETTINGS = Path(__file__).parents[2] / "fixtures/version_0_1/qwen3-mixed-rows-untied/onnx" / GENAI
ADDED_ON_DEMAND = "puts the special tokens around a text only after"
# Families whose texts it splits as Transformers does, and what the others have that it does not read: runs of blanks
# that digits were parted from, composed characters, a blank in front of the first word.
EQUAL = sorted(set(BYTE_LEVEL) - {"SmolLM2, Granite 3", "Qwen2, Qwen3", "Qwen3.5"})


def write_folder(folder: Path, name: str) -> PreTrainedTokenizerFast:
    """A folder with that family's tokenizer, and the settings that it is opened by."""
    pytest.importorskip("onnxruntime_genai", minversion="0.16")
    tokenizer = sentencepiece(name) if name in SENTENCEPIECE else byte_level(name)
    tokenizer.save_pretrained(folder)
    shutil.copyfile(SETTINGS, folder / GENAI)
    return tokenizer


@pytest.mark.parametrize("name", EQUAL)
def test_most_families_have_the_same_tokens_there(name: str, tmp_path: Path) -> None:
    tokenizer = write_folder(tmp_path, name)
    (note,) = genai_token_notes(tmp_path)
    assert ADDED_ON_DEMAND in note
    import onnxruntime_genai as genai

    reader = genai.Tokenizer(str(tmp_path))
    text = next(text for text in probe_texts() if len(text) > 20)
    expected = list(tokenizer(text)["input_ids"])
    assert [int(number) for number in reader.encode(text)] == expected[1:]
    reader.update_options(add_special_tokens="true")
    assert [int(number) for number in reader.encode(text)] == expected


@pytest.mark.parametrize("name", sorted({*BYTE_LEVEL, *SENTENCEPIECE} - set(EQUAL)))
def test_other_tokens_are_named_with_the_first_text(name: str, tmp_path: Path) -> None:
    write_folder(tmp_path, name)
    added, different = genai_token_notes(tmp_path)
    assert ADDED_ON_DEMAND in added
    assert different.startswith("onnxruntime-genai finds other tokens in ") and "append_tokens" in different


def test_a_tokenizer_that_it_cannot_read_is_one_line(tmp_path: Path) -> None:
    write_folder(tmp_path, EQUAL[0])
    settings = tmp_path / "tokenizer_config.json"
    settings.write_text(settings.read_text().replace("TokenizersBackend", "NoSuchTokenizer"))
    (note,) = genai_token_notes(tmp_path)
    assert note.startswith("onnxruntime-genai cannot read the tokenizer: ") and "NoSuchTokenizer" in note


def test_a_folder_without_a_tokenizer_has_no_note(tmp_path: Path) -> None:
    assert list(genai_token_notes(tmp_path)) == []
