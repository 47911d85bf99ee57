"""Random damage to any file of what commands read: it is named in one message, or changes nothing that is read."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from edgerazor.checkpoint import load_model
from edgerazor.checkpoint.training_checkpoint import FILES, newest_whole
from tests.commands import invoke
from tests.faults.campaign import damages
from tests.runs import recipe, write_recipe

pytestmark = pytest.mark.slow

LOSSES = {"task_weight": 0.1, "losses": [{"name": "forward_kl", "weight": 1.0}]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed folder, a run, a teacher cache and a GGUF file."""
    folder = tmp_path_factory.mktemp("damages")
    content = recipe(folder, training={"max_steps": 1, "save_steps": 1}, evaluation={"batches": 1})
    write_recipe(folder / "recipe.yaml", content)
    write_recipe(folder / "cached.yaml", {**content, "distillation": LOSSES})
    for command in (
        ["pack", folder / "model", "--recipe", folder / "recipe.yaml", "--output", folder / "packed"],
        ["train", folder / "recipe.yaml", "--output", folder / "run"],
        ["cache-teacher", folder / "cached.yaml", "--output", folder / "cache"],
        ["export", folder / "packed", "--to", "gguf", "--output", folder / "gguf" / "model.gguf"],
    ):
        (folder / "gguf").mkdir(exist_ok=True)
        result = invoke(*command)
        assert result.exit_code == 0, result.output
    return folder


def damage(path: Path, chance: random.Random) -> str:
    """Flip a bit, write over some bytes, cut off, append, or remove."""
    content = bytearray(path.read_bytes())
    place = chance.randrange(max(len(content), 1))
    kind = chance.choice(["flip", "flip", "overwrite", "cut", "append", "remove"])
    if kind == "flip":
        content[place] ^= 1 << chance.randrange(8)
    elif kind == "overwrite":
        content[place : place + 16] = chance.randbytes(min(16, len(content) - place))
    elif kind == "cut":
        del content[place:]
    elif kind == "append":
        content += chance.randbytes(9)
    path.unlink() if kind == "remove" else path.write_bytes(content)
    return f"{path.name}: {kind} at {place}"


def damaged_copies(source: Path, tmp_path: Path, then: Callable[[Path, str], None]) -> None:
    """Call `then` with a copy of `source` in which one file is damaged, again and again."""
    chance = random.Random(source.name)
    for _ in range(damages()):
        copy = tmp_path / source.name
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(source, copy)
        chosen = chance.choice(sorted(path for path in copy.rglob("*") if path.is_file()))
        then(copy, damage(chosen, chance))


def refused(what: str, *command: object) -> bool:
    """Whether a command refuses with a message; a traceback is an error of this test."""
    result = invoke(*command)
    if result.exit_code == 0:
        return False
    assert result.exit_code == 2 and "Traceback" not in result.output, (what, result.output, result.exception)
    assert result.stderr.strip(), what
    return True


def test_a_packed_folder(folder: Path, tmp_path: Path) -> None:
    sound = {name: tensor.clone() for name, tensor in load_model(folder / "packed").state_dict().items()}

    def check(copy: Path, what: str) -> None:
        if not refused(what, "generate", copy, "--prompt", "x", "--max-new-tokens", 1):
            loaded = load_model(copy).state_dict()
            assert all(torch.equal(tensor, loaded[name]) for name, tensor in sound.items()), what

    damaged_copies(folder / "packed", tmp_path, check)


def test_a_run(folder: Path, tmp_path: Path) -> None:
    """Of its checkpoints every damage is named; one without its list of files is one of older versions."""

    def check(copy: Path, what: str) -> None:
        newest, problems = newest_whole(copy, resume=True)
        if what.startswith(f"{FILES}: remove"):
            assert newest is not None and not problems, what
            return
        assert newest is None and problems and all(str(copy) in line for line in problems), what

    damaged_copies(folder / "run" / "checkpoints", tmp_path, check)


def test_a_teacher_cache(folder: Path, tmp_path: Path) -> None:
    """It is refused by training, or serves the same: the same tensors, whatever else its files hold."""

    def tensors(cache: Path) -> dict[str, torch.Tensor]:
        files = sorted(cache.glob("*.safetensors"))
        return {f"{file.name} {name}": tensor for file in files for name, tensor in load_file(file).items()}

    sound = tensors(folder / "cache")

    def check(copy: Path, what: str) -> None:
        command = ["train", folder / "cached.yaml", "--output", tmp_path / "run", "--set", "training.max_steps=1"]
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        if not refused(what, *command, "--set", f"distillation.teacher_cache={copy}"):
            served = tensors(copy)
            assert served.keys() == sound.keys(), what
            assert all(torch.equal(tensor, served[name]) for name, tensor in sound.items()), what

    damaged_copies(folder / "cache", tmp_path, check)


def test_a_gguf_file(folder: Path, tmp_path: Path) -> None:
    """`verify --against` names it, or every tensor and key is what it was, but for those that only people read."""
    reader = pytest.importorskip("gguf").GGUFReader
    labels = {"general.name", "general.file_type", "edgerazor.version", "edgerazor.file_bits"}

    def content(file: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
        opened = reader(file)
        keys = {name: opened.fields[name].contents() for name in names}
        return keys, {tensor.name: tensor.data.tobytes() for tensor in opened.tensors}

    names = reader(folder / "gguf" / "model.gguf").fields.keys() - labels
    sound = content(folder / "gguf" / "model.gguf")

    def check(copy: Path, what: str) -> None:
        if not refused(what, "verify", copy / "model.gguf", "--against", folder / "packed"):
            assert content(copy / "model.gguf") == sound, what

    damaged_copies(folder / "gguf", tmp_path, check)


def test_a_recipe(folder: Path, tmp_path: Path) -> None:
    """A damaged recipe may be another good one, so what is asked is a message and no traceback."""
    (folder / "recipe").mkdir(exist_ok=True)
    shutil.copy(folder / "recipe.yaml", folder / "recipe" / "recipe.yaml")

    def check(copy: Path, what: str) -> None:
        refused(what, "check", copy / "recipe.yaml")

    damaged_copies(folder / "recipe", tmp_path, check)
