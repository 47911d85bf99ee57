"""The contest of engines: its gate, its arithmetic, and a small round of every engine that is installed."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import decode
import numpy as np
import pytest
from decode_contest import Contest, Contestant, WorkerError, compare, quartiles
from decode_engine import by_difference, by_steps
from decode_files import bytes_per_token, file_of
from random_models import SHAPES, packed_model
from rich.console import Console

LOGITS = np.array([[0.0, 1.0, 0.9, -3.0], [2.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]], dtype=np.float32)
LIKELIEST = [1, 0, 3]
SMALL = ("--shape", "tiny", "--presets", "1.58-bit", "--threads", "1", "--rounds", "2", "--prompt", "12", "--new", "6")
INSIDE = (*SMALL, "--megabytes", "1", "--in-process")


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("decode")


def test_tokens_of_the_judge_pass() -> None:
    assert compare(LIKELIEST, LIKELIEST, LOGITS) == "all 3 equal"


def test_a_neighbour_passes_and_is_told() -> None:
    gap = 0.1 / LOGITS[0].std()
    assert compare([2, 3, 3], LIKELIEST, LOGITS) == f"token 1 is another, {gap:.3f} deviations less likely"


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        pytest.param([3, 0, 3], "gate failed: token 1 is another, 2.", id="unlikely"),
        pytest.param([1, 0, 2], "gate failed: token 3 is another, 2.", id="unlikely at last"),
        pytest.param([1, 0], "gate failed: 2 tokens where 3 were asked for", id="too few"),
    ],
)
def test_wrong_tokens_are_refused(tokens: list[int], message: str) -> None:
    with pytest.raises(WorkerError, match=message):
        compare(tokens, LIKELIEST, LOGITS)


def test_logits_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(WorkerError, match="nan deviations"):
        compare([2, 0, 3], LIKELIEST, LOGITS * np.nan)


def test_every_token_is_written_once() -> None:
    fed: list[list[int]] = []

    def feed(ids: list[int]) -> int:
        fed.append(ids)
        return 10 + len(fed)

    assert by_steps(feed, [1, 2, 3], 3).tokens == [11, 12, 13]
    assert fed == [[1, 2, 3], [11], [12]]
    assert by_difference(lambda prompt, count: [*range(count)], [1], 4).tokens == [0, 1, 2, 3]


def test_quartiles_of_a_single_round_are_its_figure() -> None:
    assert quartiles([{"decode": 2.0}], "decode") == (2.0, 2.0, 2.0)
    assert quartiles([{"decode": value} for value in (5.0, 1.0, 3.0)], "decode") == (2.0, 3.0, 4.0)


@pytest.mark.slow
def test_bytes_of_a_token_are_those_of_matrices(work: Path) -> None:
    packed = packed_model(work / "tiny", "1.58-bit", "tiny")
    size, kept = SHAPES["tiny"], Console(quiet=True)
    hidden, heads, wide = size["hidden_size"], size["head_dim"], size["intermediate_size"]
    rows = heads * (size["num_attention_heads"] + 2 * size["num_key_value_heads"]) + 2 * wide
    body = 2 * (hidden * rows + hidden * heads * size["num_attention_heads"] + hidden * wide)
    whole = body + hidden * size["vocab_size"]
    assert bytes_per_token(file_of(work / "tiny", packed, "1.58-bit", "gguf-f16", kept)) == 2 * whole
    # Codes of 2 bits with groups of 128, and those of the head of 4 bits with one group a row; float16 scales.
    stored = body // 4 + body // 64 + (whole - body) // 2 + 2 * size["vocab_size"]
    assert bytes_per_token(file_of(work / "tiny", packed, "1.58-bit", "onnx", kept)) == stored


def run(work: Path, out: Path, *engines: str) -> list[dict[str, Any]]:
    decode.main([*INSIDE, "--work", str(work), "--output", str(out), "--only", *engines])
    written = json.loads(out.read_text(encoding="utf-8"))
    assert written["copy_bytes_per_second"]["median"] > 0
    rows: list[dict[str, Any]] = written["rows"]
    return rows


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engines", "count"),
    [
        pytest.param(("transformers", "edgerazor", "onnxruntime"), 4, id="torch and ONNX Runtime"),
        pytest.param(("onnxruntime-genai",), 1, marks=pytest.mark.genai, id="genai"),
        pytest.param(("llama-cpp-python",), 3, marks=pytest.mark.llamacpp, id="llama.cpp"),
    ],
)
def test_every_engine_passes_and_is_measured(
    engines: tuple[str, ...], count: int, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in {"onnxruntime-genai": ["onnxruntime_genai"], "llama-cpp-python": ["llama_cpp"]}.get(engines[0], []):
        pytest.importorskip(module)
    rows = run(work, tmp_path / "out.json", *engines)
    assert len(rows) == count and {row["engine"] for row in rows} == set(engines)
    assert all(row["gate"].startswith(("all 6 equal", "token ")) for row in rows), rows
    assert all(min(row["decode"], row["prompt"], row["moved"], row["of_copy"]) > 0 for row in rows)
    assert capsys.readouterr().out.count("\n| ") == count


@pytest.mark.subprocess
def test_a_missing_peer_is_called_missing(tmp_path: Path) -> None:
    values = {"in_process": False, "rounds": 0, "threads": 1, "new": 2, "megabytes": 1}
    arguments = argparse.Namespace(**values, python={"edgerazor": sys.executable})
    peer = Contestant("4-bit", "openvino", "packed", "4-bit", "decode_openvino", "", str(tmp_path / "python"))
    contest = Contest([peer], {"4-bit": tmp_path}, tmp_path, [1, 2], arguments, Console(quiet=True))
    contest.check()
    assert contest.gates == {peer.key: f"missing: {tmp_path / 'python'}: No such file or directory"}
    row = decode.table(contest, 1e9)[0]
    assert row["gate"].startswith("missing") and "decode" not in row


@pytest.mark.subprocess
def test_an_interpreter_without_the_engine_says_which_package_it_lacks(tmp_path: Path) -> None:
    arguments = argparse.Namespace(in_process=False, rounds=0, threads=1, new=2, megabytes=1, python={})
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n', encoding="utf-8")
    (tmp_path / "python").chmod(0o755)
    peer = Contestant("4-bit", "openvino", "packed", "4-bit", "decode_openvino", "", str(tmp_path / "python"))
    contest = Contest([peer], {"4-bit": tmp_path}, tmp_path, [1, 2], arguments, Console(quiet=True))
    contest.check()
    assert contest.gates[peer.key] == "missing: No module named 'numpy'"
