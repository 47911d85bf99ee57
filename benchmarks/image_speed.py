"""Time of a training step and of an image, for models of the shapes of ViT-S/16 and ResNet-18 with random weights.

python benchmarks/image_speed.py --output speed --prepare     (packs and exports; minutes)
python benchmarks/image_speed.py --output speed               (measures, in rounds: every contestant once in each)

A step is one of a distilled run at the preset: the teacher's forward pass, the student's, losses, backward pass and
AdamW. Images are classified one at a time. The gate: at accuracy level 0, ONNX Runtime gives the logits of torch.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contest import publish
from rich.console import Console
from transformers import ResNetConfig, ViTConfig, ViTImageProcessorPil

from edgerazor import load_plugins
from edgerazor.checkpoint import load_model, pack_model
from edgerazor.core.outputs import Targets
from edgerazor.core.registry import Registry
from edgerazor.data.images import ImageCollator
from edgerazor.distill import Distiller
from edgerazor.export.export import build_exporter, export_checkpoint
from edgerazor.inference.open_runtime import open_exported
from edgerazor.models.load import Models, load_student
from edgerazor.models.types import auto_class
from edgerazor.schemas.recipe import Recipe, load_recipe

CLASSES, SIDE = 1000, 224
COLUMNS = {"name": "model", "what": "what", "median": "ms", "best": "best ms"}


def config_of(family: str) -> Any:
    """Of the published shape."""
    if family == "vit":
        sizes = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536, "num_hidden_layers": 12}
        return ViTConfig(**sizes, num_labels=CLASSES)
    return ResNetConfig(
        embedding_size=64,
        hidden_sizes=[64, 128, 256, 512],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        num_labels=CLASSES,
    )


def recipe_of(folder: Path, preset: str, registry: Registry) -> Recipe:
    """The preset, for the model of a folder."""
    raw = {"model": {"name_or_path": str(folder / "teacher")}, "preset": preset}
    return load_recipe(raw, registry=registry)


def prepare(folder: Path, family: str, preset: str, registry: Registry) -> None:
    """Write the random model, pack it, and export it at both levels."""
    torch.manual_seed(0)
    auto_class(config_of(family)).from_config(config_of(family)).eval().save_pretrained(folder / "teacher")
    ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder / "teacher")
    pack_model(recipe_of(folder, preset, registry), registry=registry, output=folder / "packed")
    for level in (0, 4):
        exporter = build_exporter("onnx", folder / f"onnx-{level}", [f"accuracy_level={level}"], registry)
        export_checkpoint(folder / "packed", exporter, registry=registry)


def training_step(folder: Path, preset: str, batch: int, registry: Registry) -> Callable[[], Any]:
    """A call that makes one step of a distilled run."""
    recipe = recipe_of(folder, preset, registry)
    models = Models(recipe.model, registry)
    student: Any
    student, _ = load_student(models, recipe)
    teacher = models.load_teacher(device=torch.device("cpu"))
    distiller = Distiller.from_recipe(recipe.distillation, registry=registry, adapter=models.student.adapter)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-5, fused=True)
    positions = models.student.adapter.facts(models.student.config).context
    rows = [{"pixel_values": pixels, "label": 0, "draw": (0,)} for pixels in images(batch)]
    inputs = ImageCollator(positions)(rows)
    student.train()

    def step() -> None:
        distiller(student, teacher, inputs, Targets.of_batch(inputs)).value.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def images(count: int) -> torch.Tensor:
    """Random ones, `[count, 3, 224, 224]`."""
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def contestants(folder: Path, preset: str, batch: int, registry: Registry) -> dict[str, Callable[[], Any]]:
    """Calls by what is measured.

    Raises:
        AssertionError: the export gives other logits than torch.
    """
    pixels = images(1)
    plain: Any = load_model(folder / "packed", dtype=torch.float32, dequantize=True, registry=registry)
    packed: Any = load_model(folder / "packed", dtype=torch.float32, registry=registry)
    exact, fast = (open_exported(folder / f"onnx-{level}", registry=registry) for level in (0, 4))
    with torch.inference_mode():
        expected = plain(pixel_values=pixels).logits.numpy()
    found = exact.classify(pixels.numpy())  # type: ignore[union-attr]
    error = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    assert error < 5e-6, f"logits of ONNX Runtime differ by {error:.1e}"
    exact.close()

    def in_torch(model: Any) -> Callable[[], Any]:
        return torch.inference_mode()(lambda: model(pixel_values=pixels))

    return {
        f"step of {batch} images": training_step(folder, preset, batch, registry),
        "image, torch, float32": in_torch(plain),
        "image, torch, packed folder": in_torch(packed),
        "image, ONNX Runtime": lambda: fast.classify(pixels.numpy()),  # type: ignore[union-attr]
    }


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--families", nargs="+", default=["vit", "resnet"])
    parser.add_argument("--preset", default="1.88-bit")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prepare", action="store_true", help="write, pack and export the models, and stop")
    arguments = parser.parse_args(given)
    registry, rows = load_plugins(external=False), list[dict[str, Any]]()
    for family in arguments.families:
        folder = arguments.output / family
        if arguments.prepare:
            prepare(folder, family, arguments.preset, registry)
            continue
        calls = contestants(folder, arguments.preset, arguments.batch_size, registry)
        times: dict[str, list[float]] = {what: [] for what in calls}
        for turn in range(arguments.rounds + 1):
            for what, call in calls.items():
                started = time.perf_counter()
                call()
                if turn:  # the first call is a start
                    times[what].append(1e3 * (time.perf_counter() - started))
        rows += [
            {"name": family, "what": what, "median": statistics.median(found), "best": min(found)}
            for what, found in times.items()
        ]
    if rows:
        facts = {"preset": arguments.preset, "threads": torch.get_num_threads(), "torch": torch.__version__}
        publish(arguments.output / "image_speed.json", rows, COLUMNS, facts, Console(width=120))


if __name__ == "__main__":
    main()
