"""Clients that are no Python: curl, and the AI SDK of npm."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.serve.serving import Address

SCRIPT = Path(__file__).with_name("ai_sdk.mjs")
# `make ai-sdk` installs it.
SDK = Path(os.environ.get("EDGERAZOR_AI_SDK") or SCRIPT.parents[2] / "node_modules")
CHAT = {"model": "parrot", "messages": [{"role": "user", "content": "naïve 🙂"}], "stream": True}


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl(server: Address) -> None:
    def curl(*arguments: str) -> str:
        command = ["curl", "--silent", "--show-error", "--fail-with-body", "--no-buffer", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    assert json.loads(curl(f"{server.base_url}/models"))["data"][0]["id"] == "parrot"
    # Without a content type, as people type it.
    frames = curl(f"{server.base_url}/chat/completions", "--data", json.dumps(CHAT)).split("\n\n")
    assert frames[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(frame.removeprefix("data: ")) for frame in frames[:-2]]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "naïve 🙂"


@pytest.mark.skipif(
    shutil.which("node") is None or not (SDK / "@ai-sdk/openai-compatible").is_dir(),
    reason="needs node and the AI SDK: make ai-sdk",
)
def test_the_ai_sdk(server: Address, tmp_path: Path) -> None:
    # A module looks for others beside itself.
    shutil.copy(SCRIPT, tmp_path)
    (tmp_path / "node_modules").symlink_to(SDK)
    command = ["node", str(tmp_path / SCRIPT.name), server.base_url]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "whole": ["naïve 🙂 text", "stop", True],
        "streamed": ["So.", "Why?", "stop", True],
        "called": [["find", {"place": "Rome"}]],
        "calledInStream": [["find", {"place": "Rome"}]],
        "error": [404, "there is no model 'none'; expected one of: parrot, tiny"],
    }
