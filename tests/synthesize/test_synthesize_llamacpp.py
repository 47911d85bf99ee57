"""A live OpenAI-compatible server: client and server are killed half-way, and every prompt is answered exactly once."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from synthesize_cases import dialogues, questions, read_lines, write_lines
from transformers import AutoTokenizer

from edgerazor.checkpoint.pack_source import pack_source
from edgerazor.core.registry import Registry
from edgerazor.data import load_data
from edgerazor.export.export import export_to
from edgerazor.schemas.data import DataSection
from tests.commands import succeed
from tests.runs import quantization, save_model, tokenizer, write_recipe

pytest.importorskip("llama_cpp")
for _name in ("uvicorn", "fastapi", "sse_starlette", "starlette_context", "pydantic_settings"):
    pytest.importorskip(_name)
pytestmark = [pytest.mark.llamacpp, pytest.mark.subprocess]
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
COUNT, ALIAS = 45, "tiny-teacher"


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> Path:
    """A random model in 8 bit with its chat template, as llama.cpp reads it."""
    folder = tmp_path_factory.mktemp("teacher")
    save_model(folder / "float", max_position_embeddings=1024)
    words = tokenizer()
    words.chat_template = TEMPLATE
    words.save_pretrained(folder / "float")
    rules = [{"match": "*", "quantizer": {"name": "int", "bits": 8, "group_size": 32}}]
    recipe = write_recipe(folder / "recipe.yaml", {"quantization": {**quantization(), "weights": rules}})
    pack_source(str(folder / "float"), registry=registry, output=folder / "packed", recipe=recipe)
    export_to(folder / "packed", "gguf", folder / "teacher.gguf", registry=registry)
    return folder


@contextmanager
def serving(model: Path, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """llama-cpp-python's own server; it is killed at the end."""
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(model), "--model_alias", ALIAS]
    command += ["--host", "127.0.0.1", "--port", str(port), "--n_ctx", "1024", "--n_threads", "1"]
    with log.open("ab") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        for _ in range(1200):
            assert server.poll() is None, log.read_text()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5) as answer:
                    assert json.load(answer)["data"][0]["id"] == ALIAS
                break
            except OSError:
                time.sleep(0.05)
        else:
            raise AssertionError(f"the server does not answer: {log.read_text()}")
        yield server
    finally:
        server.kill()
        server.wait()


def wait_for_rows(path: Path, count: int, client: subprocess.Popen[str]) -> None:
    """Until the file holds that many whole rows."""
    for _ in range(12000):
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        assert client.poll() is None, client.communicate()
        time.sleep(0.005)
    raise AssertionError(f"{path} does not grow")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_every_prompt_is_answered_exactly_once_whoever_is_killed(teacher: Path, tmp_path: Path) -> None:
    human = dialogues(COUNT)
    source, out = write_lines(tmp_path / "human.jsonl", human + human[:5]), tmp_path / "teacher_written.jsonl"
    port, log = free_port(), tmp_path / "server.log"
    arguments = ["synthesize", str(source), "--output", str(out), "--server", f"http://127.0.0.1:{port}/v1"]
    arguments += ["--concurrency", "4", "--max-new-tokens", "32"]

    def start_client() -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "edgerazor", *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    with serving(teacher / "teacher.gguf", port, log) as server:
        client = start_client()
        wait_for_rows(out, 6, client)
        client.kill()
        client.communicate()
        rows = out.read_bytes().splitlines(keepends=True)
        assert 6 <= len(rows) < COUNT
        # What a crash of the machine leaves of the last row.
        kept = b"".join(rows[:-1])
        os.truncate(out, len(kept) + len(rows[-1]) // 2)

        client = start_client()
        wait_for_rows(out, len(rows) + 4, client)
        server.send_signal(signal.SIGKILL)
        server.wait()
        at_the_kill = out.read_bytes().count(b"\n")
        assert at_the_kill < COUNT
        assert "trying again in" in str(client.stderr and client.stderr.readline())
    with serving(teacher / "teacher.gguf", port, log):
        printed, said = client.communicate(timeout=120)
        assert client.returncode == 0, said
        assert f"it holds {COUNT} of {COUNT}" in printed
        assert f"{len(rows) - 1} were written before" in printed and "5 rows repeat an earlier prompt" in printed
        whole = out.read_bytes()
        assert "wrote 0 dialogues" in succeed(*arguments)
    assert out.read_bytes() == whole and whole.startswith(kept)

    written = read_lines(out)
    assert len({row["id"] for row in written}) == len(written) == COUNT
    assert Counter(map(str, map(questions, written))) == Counter(map(str, map(questions, human)))
    for row in written:
        answers = [message["content"] for message in row["messages"] if message["role"] == "assistant"]
        assert len(answers) == len(row["finish_reasons"]) == len(questions(row))
        assert not any(answer.startswith("human") for answer in answers)
        assert row["settings"]["model"] == ALIAS
    section = DataSection.model_validate({"sources": [str(out)], "sequence_length": 512})
    data = load_data(section, AutoTokenizer.from_pretrained(teacher / "float"))
    assert data.usage.documents == (COUNT,)
