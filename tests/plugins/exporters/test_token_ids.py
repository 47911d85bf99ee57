"""Numbers of special tokens, wherever the files beside a model state them."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import Gemma3Config, GenerationConfig

from edgerazor.models.special_tokens import stop_tokens
from edgerazor.plugins.exporters.token_ids import stated_ids, stop_ids

ROWS = 10
CASES: dict[str, tuple[dict[str, Any], list[int]]] = {
    "alone": ({"eos_token_id": 3}, [3]),
    "several": ({"eos_token_id": [4, 3, 4]}, [4, 3]),
    "of the text model": ({"text_config": {"eos_token_id": [3, 4]}}, [3, 4]),
    "of the text model, which the whole denies": ({"eos_token_id": None, "text_config": {"eos_token_id": 3}}, [3]),
    "of both": ({"eos_token_id": 5, "text_config": {"eos_token_id": [3, 5]}}, [5, 3]),
    "beyond the rows": ({"eos_token_id": [ROWS, -1, ROWS - 1]}, [ROWS - 1]),
    "none": ({"text_config": None}, []),
}


@pytest.mark.parametrize("case", CASES)
def test_numbers_of_a_configuration(case: str) -> None:
    config, expected = CASES[case]
    assert stated_ids(config, "eos", ROWS) == expected


@pytest.mark.parametrize("case", CASES)
def test_a_folder_and_a_model_end_at_the_same_tokens(case: str, tmp_path: Path) -> None:
    config, expected = CASES[case]
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [ROWS, 8]}))
    assert stop_ids(tmp_path, ROWS) == sorted({*expected, 8})
    text = {"eos_token_id": None, **(config.get("text_config") or {}), "vocab_size": ROWS}
    whole = Gemma3Config(text_config=text, eos_token_id=config.get("eos_token_id"))
    model = SimpleNamespace(config=whole, generation_config=GenerationConfig(eos_token_id=[ROWS, 8]))
    assert stop_tokens(model, None) == {*expected, 8}
