"""The load test of the server runs, and meets the statuses that it expects."""

import json
from pathlib import Path

import pytest
import serve

from tests.runs import save_model


@pytest.mark.slow
@pytest.mark.subprocess
def test_a_short_load(tmp_path: Path) -> None:
    pytest.importorskip("uvicorn")
    model, out = save_model(tmp_path / "model"), tmp_path / "out.json"
    serve.main(
        [str(model), "--seconds", "1", "--clients", "8", "--length", "8", "--answers", "1", "--output", str(out)]
    )
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["exit_code"] == 0 and found["complaints"] == ""
    expected = {"large body": "413", "wrong JSON": "400"}
    for name in found["requests"]:
        kind, status = name.split(": ")
        assert status == expected.get(kind, "200")
    assert {name.split(":")[0] for name in found["requests"]} == set(serve.KINDS)
    assert found["load"]["tokens"] > 0 and found["memory_after_mb"] > 0
