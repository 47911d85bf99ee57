"""Clients that are no Python: curl, and the AI SDK of npm."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.serve.serving import Address

HERE = Path(__file__).parent
# `make ai-sdk` installs it.
SDK = Path(os.environ.get("EDGERAZOR_AI_SDK") or HERE.parents[1] / "node_modules")
CHAT = {"model": "parrot", "messages": [{"role": "user", "content": "naïve 🙂"}], "stream": True}


def run_ai_sdk(folder: Path, script: str, *arguments: str) -> Any:
    """What a script prints; it is copied, since a module looks for others beside itself."""
    shutil.copy(HERE / script, folder)
    (folder / "node_modules").symlink_to(SDK)
    command = ["node", str(folder / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


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
    assert run_ai_sdk(tmp_path, "ai_sdk.mjs", server.base_url) == {
        "whole": ["naïve 🙂 text", "stop", True],
        "streamed": ["So.", "Why?", "stop", True],
        "called": [["find", {"place": "Rome"}]],
        "calledInStream": [["find", {"place": "Rome"}]],
        "error": [404, "there is no model 'none'; expected one of: parrot, tiny"],
    }
