"""Every family at small random size, with rules that quantize all that its adapter offers."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgerazor.checkpoint import PackResult, round_unquantized_, write_checkpoint
from edgerazor.core.apply import apply_plan
from edgerazor.core.plan import Plan, build_plan
from edgerazor.core.registry import Registry
from edgerazor.models.source import ModelSource
from edgerazor.schemas.recipe import Recipe, load_recipe
from tests.adapters.omni_cases import batches
from tests.families import FAMILIES, SMALL, family_model

RULES = [
    {"match": ["*.embed_tokens", "lm_head"], "quantizer": {"name": "int", "bits": 4, "group_size": 32}},
    {"match": "*", "quantizer": {"name": "sqmp", "high_ratio": 0.125, "group_size": 32}},
]
QUANTIZATION = {
    "weights": RULES,
    "activations": {"name": "int", "bits": 8, "group_size": 32},
    "kv_cache": {"name": "int", "bits": 8, "group_size": 16},
}


@dataclass
class Family:
    """One family: its model folder, and students and teachers made from it."""

    name: str
    folder: Path
    registry: Registry
    plans: list[Plan] = field(default_factory=list)

    @property
    def recipe(self) -> Recipe:
        section = {"model": {"name_or_path": str(self.folder)}, "quantization": QUANTIZATION}
        return load_recipe(section, registry=self.registry)

    @property
    def adapter(self) -> Any:
        return self.registry.adapter_for(FAMILIES[self.name][0])

    def teacher(self, *, attention: str = "sdpa") -> Any:
        """The float model as the pipeline loads it, in float32."""
        model: Any = ModelSource(str(self.folder), registry=self.registry).load(torch.float32)
        model.set_attn_implementation(attention)
        return model.requires_grad_(False)

    def plan(self, model: Any) -> Plan:
        return build_plan(model, self.recipe.quantization, adapter=self.adapter, registry=self.registry)

    def student(self, *, attentions: bool = False) -> Any:
        """Quantization-aware, what is not quantized rounded as a checkpoint stores it."""
        model = self.teacher().requires_grad_(True)
        apply_plan(model, self.plan(model), registry=self.registry, attentions=attentions)
        return round_unquantized_(model)

    def write(self, student: Any, folder: Path) -> PackResult:
        plan = self.plan(self.teacher())
        return write_checkpoint(student, folder, recipe=self.recipe, plan=plan, registry=self.registry)

    def batches(self) -> dict[str, dict[str, Any]]:
        """Batches with labels, by what they hold."""
        if self.name == "omni":
            return batches()
        ids = torch.randint(0, SMALL["vocab_size"], (2, 10), generator=torch.Generator().manual_seed(1))
        return {"text": {"input_ids": ids, "labels": ids}}

    def logits(self, model: Any) -> dict[str, Tensor]:
        """Logits of every batch, by what it holds."""
        with torch.no_grad():
            return {
                kind: model(**{key: value for key, value in batch.items() if key != "labels"}).logits
                for kind, batch in self.batches().items()
            }


def save_family(name: str, folder: Path) -> None:
    """Write a small random model of the family as a 16-bit folder, in transformers' own classes."""
    family_model(name).to(torch.bfloat16).save_pretrained(folder)
