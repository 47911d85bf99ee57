"""Students to pack, and what the tests of checkpoints do with them again and again."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from edgerazor.checkpoint import PackResult, round_unquantized_, write_checkpoint
from edgerazor.checkpoint.manifest import hash_file
from edgerazor.core.apply import apply_plan
from edgerazor.core.plan import Plan, build_plan
from edgerazor.core.registry import Registry
from edgerazor.schemas.recipe import Recipe, load_recipe

INT4 = {"name": "int", "bits": 4, "group_size": 32}
SQMP = {"name": "sqmp", "high_ratio": 0.125, "group_size": 32}
PUBLISHED = [{"match": ["*.embed_tokens", "lm_head"], "quantizer": INT4}, {"match": "*", "quantizer": SQMP}]
EVERYTHING = {
    "activations": {"name": "int", "bits": 8, "group_size": 32},
    "kv_cache": {"name": "int", "bits": 8, "group_size": 16},
}


def _all(**quantizer: Any) -> list[dict[str, Any]]:
    return [{"match": "*", "quantizer": quantizer}]


# name: (family, values of the config, weight rules)
CASES: dict[str, tuple[str, dict[str, Any], list[dict[str, Any]]]] = {
    "tied": ("qwen3", {}, PUBLISHED),
    "untied": ("llama", {"tie_word_embeddings": False, "attention_bias": True}, PUBLISHED),
    "rows-of-two-kinds": ("qwen3", {"vocab_size": 99}, _all(name="sqmp", high_ratio="1/3", group_size=16)),
    "one-scale-a-row": ("qwen3", {"vocab_size": 99}, _all(name="ternary")),
    "widths-3-and-8": (
        "qwen3",
        {"tie_word_embeddings": False},
        [
            {"match": "*.mlp.*", "quantizer": {"name": "int", "bits": 3, "group_size": 32}},
            {"match": "*", "quantizer": {"name": "int", "bits": 8, "group_size": 16}},
        ],
    ),
    "four-levels": ("qwen3", {}, _all(name="int", bits=2, symmetric=False, group_size=32)),
    "signed-scales": ("qwen3", {}, _all(name="int", bits=4, symmetric=False, scale="signed_absmax", group_size=32)),
    "groups-of-two-kinds": (
        "qwen3",
        {},
        _all(name="sqmp", high_ratio=0.25, group_size=16, placement="variance_groups"),
    ),
    "two-kinds-in-one-storage": ("qwen3", {}, _all(name="sqmp", high_ratio=0.5, high_bits=8, group_size=32)),
    "mlp-only": (
        "qwen3",
        {},
        [{"match": "*.mlp.*", "quantizer": SQMP}, {"match": "*", "quantizer": None}],
    ),
}


@dataclass
class Student:
    """A quantization-aware model with what packing it needs."""

    model: Any
    plan: Plan
    recipe: Recipe
    registry: Registry

    def write(self, folder: Path, **options: Any) -> PackResult:
        return write_checkpoint(
            self.model, folder, recipe=self.recipe, plan=self.plan, registry=self.registry, **options
        )


def make_student(
    build_model: Callable[..., nn.Module],
    registry: Registry,
    folder: Path,
    case: str = "tied",
    *,
    dtype: torch.dtype = torch.float32,
    rounded: bool = True,
    **quantization: Any,
) -> Student:
    """A seeded student of one case, by way of a 16-bit folder, so that it is built as a loaded model is."""
    family, values, rules = CASES[case]
    built = build_model(family, **values)
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))))
    source = folder / "float"
    built.to(dtype).save_pretrained(source)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
    section = {"weights": rules, **EVERYTHING, **quantization}
    recipe = load_recipe({"model": {"name_or_path": str(source)}, "quantization": section}, registry=registry)
    adapter = registry.adapter_for(family)
    plan = build_plan(model, recipe.quantization, adapter=adapter, registry=registry)
    apply_plan(model, plan, registry=registry)
    return Student(round_unquantized_(model) if rounded else model, plan, recipe, registry)


def logits(model: Any, length: int = 12) -> Tensor:
    """Logits of a fixed pair of rows."""
    tokens = torch.randint(0, model.config.vocab_size, (2, length), generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        return model(input_ids=tokens).logits


def edit_tensors(folder: Path, edit: Callable[[dict[str, Tensor]], Any], *, rehash: bool = True) -> None:
    """Change the tensors of a checkpoint; with `rehash` the manifest is made to agree with the changed file."""
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    if rehash:
        update_manifest(folder)


def edit_json(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Change a JSON file, and the manifest beside it if it is another file."""
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    if path.name != "edgerazor.json":
        update_manifest(path.parent)


def update_manifest(folder: Path) -> None:
    """Write the sizes and hashes of the files as they are now."""
    path = folder / "edgerazor.json"
    content = json.loads(path.read_text())
    content["files"] = {name: hash_file(folder / name).model_dump() for name in content["files"]}
    path.write_text(json.dumps(content))
