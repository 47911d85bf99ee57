"""What the quickstart compares: rounded teachers, distilled students, one student trained by cross entropy alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HEAD_QUANTIZER = {"name": "int", "bits": 4, "group_size": 256}
SEQUENCE_LENGTH = 256


@dataclass(frozen=True)
class Variant:
    """One model of the comparison.

    Attributes:
        name: as in the table.
        kind: "rounded", "distilled" or "cross_entropy".
        bits: nominal bits of the decoder's matrices; embedding and head are int4 in all of them.
        body: quantizer of the decoder's matrices.
        share: share of the training time; 0 where nothing is trained or the steps are given by another variant.
        task_weight, feature_weight: of the family's preset.
        learning_rate: at its peak; the closer rounding is to the teacher already, the less it takes.
    """

    name: str
    kind: str
    bits: float
    body: Mapping[str, Any]
    share: float = 0.0
    task_weight: float = 0.1
    feature_weight: float = 0.1
    learning_rate: float = 1e-3

    @property
    def slug(self) -> str:
        """A folder name."""
        return f"{self.kind.replace('_', '-')}-{self.bits:g}-bit"


def _int(bits: int, **options: Any) -> dict[str, Any]:
    return {"name": "int", "bits": bits, "group_size": 256, **options}


TERNARY = {"name": "ternary", "group_size": 256}
ROUNDED = (
    Variant("rounded to 4 bit", "rounded", 4, _int(4)),
    Variant("rounded to 3 bit", "rounded", 3, _int(3)),
    Variant("rounded to 2.79 bit", "rounded", 2.79, {"name": "sqmp", "high_ratio": 0.5, "group_size": 256}),
    Variant("rounded to 2 bit", "rounded", 2, _int(2, symmetric=False)),
    Variant("rounded to 1.88 bit", "rounded", 1.88, {"name": "sqmp", "high_ratio": 0.125, "group_size": 256}),
    Variant("rounded to 1.58 bit", "rounded", 1.58, TERNARY),
)
DISTILLED = (
    Variant("distilled, 4 bit", "distilled", 4, _int(4), 0.18, 0.05, 0.5, 3e-4),
    Variant("distilled, 2.79 bit", "distilled", 2.79, ROUNDED[2].body, 0.20),
    Variant("distilled, 1.88 bit", "distilled", 1.88, ROUNDED[4].body, 0.23),
    Variant("distilled, 1.58 bit", "distilled", 1.58, TERNARY, 0.23),
)
CROSS_ENTROPY = Variant("cross entropy only, 1.58 bit", "cross_entropy", 1.58, TERNARY, 0.16)


@dataclass(frozen=True)
class Setting:
    """What all variants of one run share."""

    teacher: Path
    training_file: Path
    held_out_file: Path
    seed: int
    bf16: bool
    use_cpu: bool
    evaluation_batches: int
    evaluation_rows: int


def quantization_section(variant: Variant) -> dict[str, Any]:
    """int4 embedding and head, the variant's quantizer elsewhere, int8 activations, keys and values."""
    return {
        "weights": [
            {"match": ["*.embed_tokens", "lm_head"], "quantizer": HEAD_QUANTIZER},
            {"match": "*", "quantizer": dict(variant.body)},
        ],
        "activations": {"name": "int", "bits": 8, "group_size": 256},
        "kv_cache": {"name": "int", "bits": 8, "group_size": 64},
    }


def distillation_section(variant: Variant) -> dict[str, Any] | None:
    """The published losses, with as many feature layers as the small teacher has; None for cross entropy alone."""
    if variant.kind == "cross_entropy":
        return None
    layers = {"name": "lafd", "top_k": 2}
    return {
        "task_weight": variant.task_weight,
        "losses": [
            {"name": "eakld", "weight": 2.0, "temperature": 1.0, "uniform_support": 16},
            {"name": "feature_mse", "weight": variant.feature_weight, "layers": layers},
        ],
    }


def recipe_of(variant: Variant, setting: Setting, *, seconds: float | None = None, steps: int = -1) -> dict[str, Any]:
    """The recipe of a trained variant, by the clock or by a number of steps."""
    return {
        "model": {"name_or_path": str(setting.teacher)},
        "data": data_section(setting),
        "quantization": quantization_section(variant),
        "distillation": distillation_section(variant),
        "training": {
            "learning_rate": variant.learning_rate,
            "weight_decay": 0.0,
            "lr_scheduler_type": "cosine",
            "warmup_steps": 0.05,
            "max_seconds": seconds,
            "max_steps": steps,
            "per_device_train_batch_size": 4,
            "logging_steps": 10,
            "save_strategy": "no",
            "seed": setting.seed,
            "bf16": setting.bf16,
            "use_cpu": setting.use_cpu,
        },
        "evaluation": {"batches": 2, "batch_size": setting.evaluation_rows},
    }


def data_section(setting: Setting) -> dict[str, Any]:
    """The offline corpus, packed into rows of 256 tokens; held-out files stay apart."""
    return {
        "sources": [{"path": str(setting.training_file)}],
        "held_out": [{"path": str(setting.held_out_file)}],
        "sequence_length": SEQUENCE_LENGTH,
        "seed": setting.seed,
    }
