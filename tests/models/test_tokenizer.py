"""A tokenizer in a folder, whatever its files hold, is loaded or refused in one line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerazor.errors import CheckpointError
from edgerazor.models.tokenizer import load_tokenizer
from tests.runs import save_model

FILE = "tokenizer.json"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("tokenizer") / "model")


@pytest.fixture(scope="module")
def copy(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Only the tokenizer's files; a test writes its own `tokenizer.json`."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copy(model / "tokenizer_config.json", folder)
    return folder


@pytest.mark.parametrize(
    ("old", "new"), [('"add_prefix_space"', '"add_prefix_spbce"'), ('"merges"', '"mergez"'), ('"vocab"', '"vocbb"')]
)
def test_a_flipped_letter_is_one_line(model: Path, copy: Path, old: str, new: str) -> None:
    text = (model / FILE).read_text()
    assert old in text
    (copy / FILE).write_text(text.replace(old, new, 1))
    with pytest.raises(CheckpointError, match=f"^{copy}: no usable tokenizer: [^\n]+$"):
        load_tokenizer(copy)


@given(data=st.data())
@settings(max_examples=60)
def test_anything_else_in_its_place_is_loaded_or_refused(model: Path, copy: Path, data: st.DataObject) -> None:
    content: Any = json.loads((model / FILE).read_text())
    place = content
    while isinstance(place, dict | list) and len(place):
        key = data.draw(st.sampled_from(sorted(place)) if isinstance(place, dict) else st.integers(0, len(place) - 1))
        if data.draw(st.booleans()):
            place[key] = data.draw(st.sampled_from([None, 0, -1, 2**40, "", "x", [], {}, True]))
            break
        place = place[key]
    (copy / FILE).write_text(json.dumps(content))
    try:
        load_tokenizer(copy)
    except CheckpointError as error:
        assert len(str(error).splitlines()) == 1
