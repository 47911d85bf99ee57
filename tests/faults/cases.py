"""Commands that write, on models of a few thousand parameters."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from tests.commands import succeed
from tests.importers.foreign import gptq_tensors, write_folder
from tests.runs import recipe, write_recipe
from tests.synthesize.synthesize_cases import dialogues, save_teacher, write_lines

TRAINING = {"max_steps": 3, "save_steps": 1, "per_device_train_batch_size": 2}
LOSSES = {"task_weight": 0.1, "losses": [{"name": "forward_kl", "weight": 1.0}]}

Command = Callable[[Path, Path], list[object]]
COMMANDS: dict[str, Command] = {
    "pack": lambda folder, output: ["pack", folder / "model", "--recipe", folder / "recipe.yaml", "--output", output],
    "train": lambda folder, output: ["train", folder / "recipe.yaml", "--output", output],
    "cache-teacher": lambda folder, output: ["cache-teacher", folder / "cached.yaml", "--output", output],
    "gguf": lambda folder, output: ["export", folder / "packed", "--to", "gguf", "--output", output],
    "onnx": lambda folder, output: ["export", folder / "packed", "--to", "onnx", "--output", output],
    "compressed-tensors": lambda folder, output: [
        *("export", folder / "packed", "--to", "compressed-tensors", "--output", output)
    ],
    "import": lambda folder, output: ["import", folder / "gptq", "--output", output],
    "synthesize": lambda folder, output: [
        *("synthesize", folder / "questions.jsonl", "--output", output, "--model", folder / "teacher"),
        *("--max-new-tokens", 6, "--batch-size", 2),
    ],
}
if find_spec("mlx"):
    COMMANDS["mlx"] = lambda folder, output: ["export", folder / "packed", "--to", "mlx", "--output", output]
REPLACING = COMMANDS.keys() - {"train", "cache-teacher", "synthesize"}
NAMES = {"gguf": "model.gguf", "synthesize": "written.jsonl"}


def make_inputs(folder: Path) -> Path:
    """What the commands read: models, data, recipes, a packed folder, one of GPTQ, and questions."""
    content = recipe(folder, training=TRAINING, evaluation={"batches": 1})
    write_recipe(folder / "recipe.yaml", content)
    write_recipe(folder / "cached.yaml", {**content, "distillation": LOSSES})
    save_teacher(folder / "teacher")
    write_lines(folder / "questions.jsonl", dialogues(8))
    section = {"quant_method": "gptq", "bits": 4}
    write_folder(folder / "gptq", section, lambda name, weight: gptq_tensors(name, weight, 4), num_hidden_layers=1)
    succeed(*COMMANDS["pack"](folder, folder / "packed"))
    return folder


def output_of(name: str, folder: Path) -> Path:
    """Where a command writes to, below a folder of its own."""
    return folder / "out" / NAMES.get(name, "result")
