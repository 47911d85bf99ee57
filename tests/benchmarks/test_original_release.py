"""The original release in the laboratory: it is told what the published recipe says, and measured as we measure."""

import subprocess
from importlib import import_module
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM

from edgerazor.core.registry import Registry
from edgerazor.data import Collator
from edgerazor.evaluate.checkpoints import evaluate_model
from edgerazor.schemas.recipe import Recipe, load_recipe
from tests.families import family_model
from tests.runs import LINES, save_model

LENGTH, ROWS, SHORT = 24, 6, 17


def published(folder: Path, registry: Registry, bits: float = 1.88) -> Recipe:
    contestants, recipes = import_module("quality_contestants"), import_module("quality_recipes")
    values = {"teacher": folder, "group_size": 32, "head_size": 16, "layers": 2, "held_out": folder / "held.jsonl"}
    sizes = {"steps": 2, "sequence_length": LENGTH, "batch_size": 2, "learning_rate": 1e-3}
    setting = recipes.Setting(**values, **sizes, sources={"human": folder / "human.jsonl"})
    (contestant,) = (entry for entry in contestants.CONTESTANTS if entry.name == f"published, {bits:g} bit")
    return load_recipe(recipes.recipe_of(contestant, setting, 3), registry=registry)


def rows(vocabulary: int) -> Dataset:
    """Packed rows of random ids, two documents each, the last one short."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for length in (*[LENGTH] * (ROWS - 1), SHORT):
        ids = torch.randint(vocabulary, (length,), generator=generator).tolist()
        positions = [*range(9), *range(length - 9)]
        labels = [-100 if position == 0 else token for position, token in zip(positions, ids, strict=True)]
        made.append({"input_ids": ids, "labels": labels, "position_ids": positions, "label_bytes": length})
    return Dataset.from_list(made)


@pytest.mark.parametrize("bits", [1.58, 1.88, 2.79, 4])
def test_the_original_release_is_told_what_the_published_recipe_says(
    bits: float, tmp_path: Path, registry: Registry
) -> None:
    release, recipe = import_module("original_release"), published(tmp_path, registry, bits)
    told = release.told_original(bits, recipe)
    quantization, distillation = told["quantization"], told["distillation"]
    assert quantization["function"]["w_block_size"] == quantization["function"]["a_block_size"] == 32
    ratio = {2.79: 0.5, 1.88: 0.125}.get(bits, -1)
    assert quantization["function"]["w_mixed_precision_prop"] == ratio
    assert [entry["name"] for entry in quantization["overrides"]] == [".*embed_tokens", ".*lm_head"]
    weights = (0.05, 0.5) if bits == 4 else (0.1, 0.1)
    assert (distillation["loss_task_alpha"], distillation["loss_2"]["alpha"]) == weights
    assert told["training"]["max_steps"] == 2 and told["training"]["adam_beta2"] == recipe.training.adam_beta2
    assert distillation["loss_1"]["alpha"] == 2.0 and distillation["loss_2"]["layer_index_adaptive_topk"] == 2


def test_its_student_is_measured_as_ours_is(tmp_path: Path, registry: Registry) -> None:
    student, teacher = (family_model("qwen3").float().eval() for _ in range(2))
    for model in (student, teacher):
        model.config.use_cache = False
    for parameter in student.parameters():
        parameter.data.mul_(1.1)
    held_out = rows(student.config.vocab_size)
    import_module("original_release")._write_rows(held_out, LENGTH, tmp_path / "rows.safetensors")
    theirs = import_module("original_student")
    found = theirs.measure(student, teacher, theirs.Rows(tmp_path / "rows.safetensors"), 4)
    ours = evaluate_model(
        student, teacher, held_out, adapter=registry.adapter_for("qwen3"), batch_size=4, collator=Collator(0)
    )
    assert found["loss"] == pytest.approx(ours.loss, rel=1e-5)
    assert found["kl_teacher"] == pytest.approx(ours.kl_teacher, rel=1e-4)
    assert found["teacher_loss"] == pytest.approx(ours.teacher_loss, rel=1e-5)
    assert found["top1_agreement"] == pytest.approx(ours.top1_agreement)


def test_where_it_is_not_installed_the_laboratory_leaves_it_out_and_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(SystemExit):
        import_module("quality").main(["--output", str(tmp_path / "lab"), "--only", "original release"])
    assert "benchmarks/peers.py" in capsys.readouterr().err


def runs(python: Path | None) -> bool:
    """Whether the original's environment is there, and what it shares with the one that made it is, too."""
    return python is not None and not subprocess.run([python, "-c", "import edgerazor"], check=False).returncode


@pytest.mark.subprocess
def test_the_original_release_trains_and_its_teacher_is_ours(tmp_path: Path, registry: Registry) -> None:
    if not runs(import_module("peers").interpreter("original")):
        pytest.skip("benchmarks/peers.py has not installed the original release")
    folder = save_model(tmp_path / "teacher")
    release, recipe = import_module("original_release"), published(folder, registry)
    teacher = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    data = rows(teacher.config.vocab_size)
    ours = evaluate_model(teacher, None, data, adapter=registry.adapter_for("qwen3"), collator=Collator(0)).loss
    told = {"training": data, "held_out": data, "length": LENGTH, "rows_at_once": 4}
    figures = release.train_and_measure(1.88, recipe, tmp_path / "work", **told, teacher_loss=ours)
    assert figures["steps"] == 2 and figures["kl_teacher"] > 0
    with pytest.raises(RuntimeError, match="the teacher has a loss of"):
        release.train_and_measure(1.88, recipe, tmp_path / "again", **told, teacher_loss=ours + 0.01)


@pytest.mark.subprocess
def test_the_laboratory_goes_on_behind_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not runs(import_module("peers").interpreter("original")):
        pytest.skip("benchmarks/peers.py has not installed the original release")
    text = tmp_path / "text"
    text.mkdir()
    for index in range(12):
        (text / f"{index}.txt").write_text("\n".join(LINES[index * 13 : index * 13 + 13]), encoding="utf-8")
    options = ["--teacher", str(save_model(tmp_path / "model")), "--data", str(text), "--batches", "1", "--steps", "1"]
    options += ["--length", "32", "--seeds", "0", "--only", "original release 1.3.5, 1.", "GPTQ, 4"]
    import_module("quality").main([*options, "--output", str(tmp_path / "out")])
    told = capsys.readouterr().out
    names = ("original release 1.3.5, 1.88 bit", "original release 1.3.5, 1.58 bit", "GPTQ, 4 bit")
    assert all(f"| {name} | 1 |" in told for name in names)
