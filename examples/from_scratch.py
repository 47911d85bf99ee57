"""The whole path in one program: a 16-bit teacher, data, one recipe, a low-bit student, its files, its text.

    python examples/from_scratch.py FOLDER [--steps N]

It runs offline in about a minute on two cores. The teacher is the small Qwen3 that ships with the package, the text is
the source of Python's own modules; with your model and your JSON lines in their place the rest stays as it is.
"""

import argparse
import inspect
import json
from importlib import import_module
from importlib.resources import files
from pathlib import Path

import edgerazor

MODULES = ("argparse", "ast", "calendar", "csv", "difflib", "heapq", "inspect", "json.decoder", "textwrap", "zipfile")


def write_data(path):
    """Rows of text as JSON lines; rows of `messages` would be dialogues."""
    sources = [inspect.getsource(import_module(name)) for name in MODULES]
    texts = [source[start : start + 2000] for source in sources for start in range(0, len(source), 2000)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")


def recipe_for(model, data, steps):
    """What becomes of every matrix, what the student learns from, and how long."""
    return {
        "model": {"name_or_path": str(model), "family": "qwen3"},
        "quantization": {
            "weights": [
                {"match": ["*.embed_tokens", "lm_head"], "quantizer": {"name": "int", "bits": 4, "group_size": 256}},
                {"match": "*", "quantizer": {"name": "sqmp", "high_ratio": 0.125, "group_size": 256}},
            ],
            "activations": {"name": "int", "bits": 8, "group_size": 256},
        },
        "distillation": {
            "task_weight": 0.1,
            "losses": [
                {"name": "eakld", "weight": 2.0},
                {"name": "feature_mse", "weight": 0.1, "layers": {"name": "lafd", "top_k": 1}},
            ],
        },
        "data": {"sources": [{"path": str(data)}], "sequence_length": 128, "held_out": 0.05},
        "training": {"max_steps": steps, "per_device_train_batch_size": 4, "learning_rate": 1e-3},
    }


def main(folder, steps):
    folder.mkdir(parents=True, exist_ok=True)
    write_data(folder / "data.jsonl")

    registry = edgerazor.load_plugins()
    teacher = files("edgerazor") / "quickstart" / "teacher"
    recipe = edgerazor.load_recipe(recipe_for(teacher, folder / "data.jsonl", steps), registry=registry)

    plan = edgerazor.plan_recipe(recipe, registry=registry)
    print(f"plan: {plan.coverage:.1%} of the parameters at {plan.effective_bits:.2f} bits, scales included")

    rounded = edgerazor.pack_model(recipe, registry=registry, output=folder / "rounded")
    trained = edgerazor.train(recipe, registry=registry, output=folder / "run")
    for name, checkpoint in (("rounded", rounded.folder), ("distilled", trained.checkpoint)):
        edgerazor.verify_checkpoint(checkpoint).raise_if_damaged()
        found = edgerazor.evaluate_checkpoint(checkpoint, registry=registry)
        print(f"{name}: held-out loss {found.loss:.3f}, KL to the teacher {found.kl_teacher:.3f}")

    exporter = registry.build(registry.params("exporter", "gguf", path=str(folder / "model.gguf")))
    opened = edgerazor.open_checkpoint(trained.checkpoint, registry=registry)
    exported = exporter.export(opened, folder / "model.gguf")
    assert not exporter.verify(exported.path, opened).different
    print(f"{exported.path}: {exported.bytes / 1e6:.2f} MB, every tensor equal to the checkpoint's")

    print(edgerazor.generate(trained.checkpoint, "def load(self, path):\n    ", registry=registry))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=60)
    arguments = parser.parse_args()
    main(arguments.folder, arguments.steps)
