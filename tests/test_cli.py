"""The command line from outside: what is printed, where, and with which exit code."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgerazor import __version__
from tests.commands import fail, invoke, succeed
from tests.runs import preset_recipe, save_data, save_model, write_recipe

COMMANDS = [
    "quickstart",
    "init",
    "check",
    "plan",
    "synthesize",
    "pack",
    "cache-teacher",
    "train",
    "evaluate",
    "generate",
    "export",
    "verify",
    "plugins",
    "schema",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model`, `data.jsonl` and `recipe.yaml`."""
    folder = tmp_path_factory.mktemp("work")
    content = preset_recipe(save_model(folder / "model", num_hidden_layers=3), save_data(folder / "data.jsonl"))
    write_recipe(folder / "recipe.yaml", content)
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    """The folder of a finished run of two steps."""
    output = folder / "run"
    printed = succeed("train", folder / "recipe.yaml", "--output", output)
    assert "trained 2 steps in" in printed and str(output / "packed") in printed
    return output


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    assert command in succeed("--help")
    assert "Usage" in succeed(command, "--help")


@pytest.mark.subprocess
def test_version_and_module() -> None:
    assert succeed("--version").strip() == f"edgerazor {__version__}"
    done = subprocess.run([sys.executable, "-m", "edgerazor", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"edgerazor {__version__}"


def test_a_usage_error_is_exit_code_2() -> None:
    assert "No such command" in fail("quantise")
    assert "Missing" in fail("train", "recipe.yaml")


def test_init_writes_a_recipe_that_check_accepts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "set model and data" in succeed("init")
    assert "'models/student' has no config.json on this machine" in fail("check", "recipe.yaml")
    name = "models/a student: mine #1"
    save_model(tmp_path / name, num_hidden_layers=3)
    assert "set data" in succeed("init", "recipe.yaml", "--model", name, "--preset", "1.58-bit", "--force")
    assert yaml.safe_load(Path("recipe.yaml").read_text(encoding="utf-8"))["preset"] == "1.58-bit"
    assert "there is no file or folder data/train.jsonl" in fail("check", "recipe.yaml")
    (tmp_path / "data").mkdir()
    save_data(tmp_path / "data" / "train.jsonl")
    assert succeed("check", "recipe.yaml").startswith("recipe.yaml: ok\n")


def test_init_overwrites_only_when_told(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("mine", encoding="utf-8")
    assert fail("init", path) == f"{path}: is there already; choose another name, or --force to overwrite it\n"
    assert path.read_text(encoding="utf-8") == "mine"
    succeed("init", path, "--force")
    assert set(yaml.safe_load(path.read_text(encoding="utf-8"))) >= {"model", "preset", "data", "training"}
    absent = tmp_path / "absent" / "recipe.yaml"
    assert fail("init", absent, "--preset", "1.8-bit") == "no preset named '1.8-bit'; did you mean '1.88-bit'?\n"
    assert fail("init", absent) == f"{absent}: cannot be written: No such file or directory\n"


def test_check_says_what_a_recipe_comes_to(folder: Path) -> None:
    printed = succeed("check", folder / "recipe.yaml")
    assert printed.startswith(f"{folder / 'recipe.yaml'}: ok\n")
    assert "bits per quantized weight" in printed and "size on disk" in printed


def test_check_reports_paths_shapes_and_data_at_once(folder: Path) -> None:
    error = fail(
        "check",
        folder / "recipe.yaml",
        "--set",
        "preset.group_sizes.weights=48",
        "--set",
        "data.sources[0].path=absent.jsonl",
        "--set",
        f"model.teacher={folder}",
    )
    assert "data.sources[0].path: there is no file or folder absent.jsonl" in error
    assert f"model.teacher: the folder {folder} holds no config.json" in error
    assert "model.layers.0.mlp.up_proj: 64 columns are not a multiple of group_size 48; 64, 32 would fit" in error


def test_check_without_the_model_at_hand_says_what_it_left_out(folder: Path) -> None:
    changes = ["--set", "model.name_or_path=nobody/nothing", "--set", "model.family=qwen3"]
    printed = succeed("check", folder / "recipe.yaml", *changes)
    assert "nobody/nothing is not on this machine; shapes and vocabulary were not checked" in printed
    assert "lafd: top_k is 4, but the teacher has 3 layers" in fail(
        "check", folder / "recipe.yaml", "--set", "distillation.losses[1].layers.top_k=4"
    )
    assert "model.name_or_path: there is no folder ./nowhere" in fail(
        "check", folder / "recipe.yaml", "--set", "model.name_or_path=./nowhere"
    )


def test_plan_groups_equal_layers(folder: Path) -> None:
    printed = succeed("plan", folder / "recipe.yaml")
    row = next(line for line in printed.splitlines() if "mlp.up_proj" in line)
    assert row.startswith("model.layers.{0-2}.mlp.up_proj ×3 ")
    assert "weights[1]" in row and "sqmp group_size=32 high_ratio=0.125" in row
    assert "model.layers.1.mlp.up_proj" in succeed("plan", folder / "recipe.yaml", "--all")
    tied = next(line for line in printed.splitlines() if line.startswith("lm_head"))
    assert tied.split()[-1] == "tied"
    for words in (
        "bits per quantized weight",
        "quantized",
        "size on disk",
        "compression",
        "keys and values: int group_size=16 bits=8",
    ):
        assert words in printed


def test_plan_as_json_adds_up(folder: Path) -> None:
    content = json.loads(succeed("plan", folder / "recipe.yaml", "--json", "--set", "quantization.kv_cache=null"))
    assert content["kv_cache"] is None
    assert {module["name"] for module in content["modules"]} >= {"lm_head", "model.layers.1.self_attn.q_proj"}
    rest = 2 * (content["parameters"] - sum(_weights(module) for module in content["modules"]))
    assert content["bytes"] == rest + sum(module["bytes"] for module in content["modules"])
    quantized = sum(_weights(module) for module in content["modules"] if module["quantizer"])
    assert content["coverage"] == pytest.approx(quantized / content["parameters"])


def test_matrices_that_no_rule_takes_are_said_by_plan_and_check(folder: Path) -> None:
    change = ["--set", "quantization.weights=[{match: '*.mlp.*', quantizer: {name: ternary, group_size: 32}}]"]
    note = "model.layers.{0-2}.self_attn.k_proj ×3 [32, 64]: no rule takes it; stays at 16 bit, which takes "
    assert f"  note: {note}" in succeed("check", folder / "recipe.yaml", *change)
    assert f"\nnote: {note}" in succeed("plan", folder / "recipe.yaml", *change)
    content = json.loads(succeed("plan", folder / "recipe.yaml", "--json", *change))
    assert content["matrices_left_out"]["model.layers.1.self_attn.k_proj.weight"] == 32 * 64
    assert any(line.startswith(note) for line in content["notes"])
    listed = sum(content["matrices_left_out"].values()) / content["parameters"]
    vectors = 1 - content["coverage"] - listed
    assert 0 < vectors < 0.02


def _weights(module: dict[str, Any]) -> int:
    return 0 if module["tied_to"] else module["shape"][0] * module["shape"][1]


def test_schema_to_the_terminal_and_to_a_file(tmp_path: Path) -> None:
    printed = json.loads(succeed("schema"))
    succeed("schema", "--output", tmp_path / "recipe.schema.json")
    assert json.loads((tmp_path / "recipe.schema.json").read_text(encoding="utf-8")) == printed
    absent = tmp_path / "absent" / "schema.json"
    assert fail("schema", "--output", absent) == f"{absent}: cannot be written: No such file or directory\n"


def test_plugins_lists_what_is_built_in() -> None:
    printed = succeed("plugins")
    row = next(line for line in printed.splitlines() if "edgerazor.plugins" in line)
    assert __version__ in row and "sqmp" in row and "eakld" in row and row.rstrip().endswith("ok")


def test_an_export_without_its_exporter_fails_before_anything_is_done(folder: Path, tmp_path: Path) -> None:
    change = ["--set", "export=[{name: acme.tflite, path: out}]"]
    error = fail("train", folder / "recipe.yaml", "--output", tmp_path / "run", *change)
    assert error.endswith("export[0]: no exporter named 'acme.tflite'; no plugin 'acme' is installed\n")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_train_writes_recipe_metrics_and_a_sound_checkpoint(run: Path, folder: Path) -> None:
    assert (run / "recipe.yaml").exists() and (run / "metrics.json").exists()
    assert re.search(r"packed: ok, \d+ tensors", succeed("verify", run / "packed"))
    assert "ok" in succeed("verify", run / "packed", "--logits")
    error = fail("train", folder / "recipe.yaml", "--output", run)
    assert "already holds a run; resume it with --resume, or choose another folder" in error
    assert "is finished and packed already" in fail("pack", run, "--output", folder / "again")


def test_evaluate_a_checkpoint(run: Path, folder: Path) -> None:
    printed = succeed("evaluate", run / "packed")
    figures = {name: float(value.replace(",", "")) for name, value in re.findall(r"(\w+): (\S+)", printed)}
    assert figures.keys() >= {"loss", "bits_per_byte", "kl_teacher", "top1_agreement", "tokens", "teacher_loss"}
    assert figures["loss_gap"] == pytest.approx(figures["loss"] - figures["teacher_loss"], abs=2e-4)
    assert figures["tokens_per_second"] > 0
    other = save_data(folder / "other.jsonl", ["One document that is read whole."])
    assert "tokens: " in succeed("evaluate", run / "packed", "--data", other, "--teacher", folder / "model")
    error = fail("evaluate", run / "packed", "--data", other, "--set", "data.packin=true", "--set", "training.seed=1")
    assert "data has no 'packin'; did you mean 'packing'?" in error
    assert "training.seed=1: evaluate takes data.key=value, evaluation.batches and" in error
    small = ("--set", "evaluation.batches=1", "--set", "evaluation.batch_size=1")
    few = re.search(r"tokens: (\d+)", succeed("evaluate", run / "packed", *small))
    assert few is not None and int(few[1]) < figures["tokens"]
    error = fail("evaluate", run / "packed", "--set", "evaluation.batches=0", "--set", "evaluation.every_steps=3")
    assert "--set evaluation.batches: " in error and "--set evaluation.every_steps=3: evaluate takes" in error
    error = fail("evaluate", run / "packed", "--set", "data.held_out=null")
    assert error == ("--set data.held_out: is null, so only what was trained on is left; give a file with --data\n")


@pytest.mark.slow
def test_generate_streams_text_and_repeats_itself_for_a_seed(run: Path) -> None:
    def text(*options: object) -> str:
        return succeed("generate", run / "packed", "--prompt", "The fox", "--max-new-tokens", 8, *options)

    greedy = text()
    assert greedy == text()
    assert text("--temperature", 1.0, "--seed", 7) == text("--temperature", 1.0, "--seed", 7)
    assert "no chat template; leave --chat out" in fail("generate", run / "packed", "--prompt", "x", "--chat")
    assert "write at least one word" in fail("generate", run / "packed", "--prompt", "")


def test_the_old_spelling_of_output_works_and_is_pointed_out(tmp_path: Path) -> None:
    for old in (["--out", tmp_path / "a.json"], [f"--out={tmp_path / 'b.json'}"]):
        result = invoke("schema", *old)
        assert result.exit_code == 0 and result.stderr == "note: --out is now --output; this version still takes both\n"
    assert (tmp_path / "a.json").read_text() == (tmp_path / "b.json").read_text() != ""


def test_pack_a_model_by_preset_or_recipe(folder: Path, tmp_path: Path) -> None:
    sizes = [f"--set=preset.group_sizes.{key}={size}" for key, size in (("weights", 32), ("activations", 32))]
    chosen = ["--preset", "4-bit", *sizes, "--set=preset.group_sizes.kv_cache=16"]
    assert "bits per quantized weight" in succeed("pack", folder / "model", *chosen, "--output", tmp_path / "four")
    succeed("verify", tmp_path / "four")
    succeed("pack", folder / "model", "--recipe", folder / "recipe.yaml", "--output", tmp_path / "recipe")
    assert "needs --preset NAME or --recipe FILE" in fail("pack", folder / "model", "--output", tmp_path / "none")
    both = ["--preset", "4-bit", "--recipe", folder / "recipe.yaml"]
    assert "give one of them" in fail("pack", folder / "model", *both, "--output", tmp_path / "both")
    assert "no preset named '3-bit'" in fail("pack", folder / "model", "--preset", "3-bit", "--output", tmp_path / "x")


@pytest.mark.slow
def test_interrupting_a_run_saves_it_and_says_how_to_go_on(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    command = ["train", folder / "recipe.yaml", "--output", output]

    def interrupt() -> None:
        while not list(output.glob("checkpoints/checkpoint-*/trainer_state.json")):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    result = invoke(*command, "--set", "training.max_steps=100000")
    assert result.exit_code == 130, result.output
    step = int(re.search(r"stopped at step (\d+); it is saved", result.stderr)[1])  # type: ignore[index]
    resume = f"edgerazor train {folder / 'recipe.yaml'} --output {output} --set training.max_steps=100000 --resume"
    assert resume in result.stderr.splitlines()
    assert "bits per quantized weight" in succeed("pack", output, "--output", tmp_path / "halfway")
    assert f"trained {step + 1} steps" in succeed(*command, "--set", f"training.max_steps={step + 1}", "--resume")
    succeed("verify", output / "packed")
