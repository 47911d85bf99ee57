"""Every script of the scoreboards runs: tiny shapes, two rounds, its gates passed."""

import json
import re
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.runs import save_data, save_model

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
INSIDE = ("--quick", "--threads", "1", "--in-process")
DISTILLING = ("ours", "separate passes (our reconstruction)")
CHOSEN = {
    "fake_quantization": ("ours", "separate passes (our reconstruction)", "copy into a buffer"),
    "logits_loss": (*DISTILLING, "plain autograd, float32", "four products alone"),
    "training_step": ("full precision", "forward KL, plain", "ours, allocator of `edgerazor train`", *DISTILLING),
    "accumulation": ("ours",),
    "trained_scales": ("ours", "ours, trained scales"),
}


def run(script: str, out: Path, *arguments: str) -> dict[str, Any]:
    """The JSON that a script writes."""
    import_module(script).main([*arguments, "--output", str(out)])
    written: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return written


@pytest.mark.parametrize("script", CHOSEN)
def test_every_contestant_passes_its_gate_and_is_measured(script, tmp_path, capsys):
    written = run(script, tmp_path / "out.json", *INSIDE, "--only", *CHOSEN[script])
    measured = [entry for entry in written["measurements"] if entry["problem"] != "no product is needed"]
    assert {entry["name"] for entry in measured} == set(CHOSEN[script])
    assert [entry["problem"] for entry in measured] == [None] * len(measured)
    assert all(len(entry["seconds"]) == 2 and entry["median"] > 0 for entry in measured)
    assert {"load_before", "load_after", "threads", "machine"} <= set(written)
    assert capsys.readouterr().out.count("\n| ") >= len(written["rows"])


def test_growth_gives_every_curve(tmp_path):
    written = run("growth", tmp_path / "out.json", *INSIDE)
    assert [entry["problem"] for entry in written["measurements"]] == [None] * len(written["measurements"])
    assert {row["curve"] for row in written["rows"]} == {"tokens", "vocabulary"}
    assert {row["curve"] for row in written["steps"]} == {"sequence", "layers"}


def test_the_profile_finds_every_part(tmp_path):
    written = run("profile_step", tmp_path / "out.json", *INSIDE[:3], "--rounds", "1")
    spent = {row["name"]: row["ms"] for row in written["rows"]}
    parts = {"teacher", "student forward", "loss", "backward", "optimizer", "fake quantization", "rest"}
    assert set(spent) == parts and all(spent.values())


def test_scales_of_both_kinds_are_compared_on_the_same_rows(tmp_path):
    model, data = save_model(tmp_path / "model", num_hidden_layers=3), save_data(tmp_path / "rows.jsonl")
    options = ("--teacher", str(model), "--data", str(data), "--seeds", "0", "1", "--batches", "1", "--length", "64")
    written = run("scale_dtypes", tmp_path / "out.json", *options, "--presets", "1.58-bit", "--steps", "1")
    rounded, distilled = written["rows"]
    assert (rounded["student"], distilled["student"]) == ("1.58-bit, rounded", "1.58-bit, distilled")
    assert rounded["cost"] == pytest.approx(rounded["float16_bfloat16"] - rounded["float16"])
    assert rounded["float16_bfloat16"] != rounded["float16"] and distilled["standard_error"] >= 0


def test_packed_and_plain_models_are_measured_side_by_side(tmp_path):
    written = run("packed_runtime", tmp_path / "out.json", "--quick")
    plain, packed = written["rows"][0], [row for row in written["rows"] if row["name"].startswith("packed")]
    assert plain["ratio"] == plain["load_ratio"] == 1 and len(packed) == 3
    assert all(len(figures["token"]) == 4 and min(figures["token"]) > 0 for figures in written["measurements"].values())


@pytest.mark.subprocess
def test_contestants_run_in_processes_of_their_own(tmp_path):
    chosen = ("ours", "copy into a buffer")
    written = run("fake_quantization", tmp_path / "out.json", *INSIDE[:3], "--only", *chosen)
    assert all(entry["problem"] is None and len(entry["seconds"]) == 2 for entry in written["measurements"])


def test_make_bench_runs_scripts_that_exist():
    done = subprocess.run(["make", "--dry-run", "bench"], cwd=ROOT, capture_output=True, text=True, check=True)
    scripts = re.search(r"^for script in ([a-z_ ]+);", done.stdout, re.MULTILINE)
    assert scripts and all((ROOT / "benchmarks" / f"{name}.py").is_file() for name in scripts[1].split())
