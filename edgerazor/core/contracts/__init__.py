"""What the code behind a declaration implements. Importing this package imports no torch."""

from edgerazor.core.contracts.adapter import ArchitectureAdapter, TensorRole
from edgerazor.core.contracts.exporter import (
    Checkpoint,
    ComparisonResult,
    Exporter,
    ExportPlan,
    ExportResult,
    NamedTensors,
    Progress,
)
from edgerazor.core.contracts.facts import GGUFArchitecture, ModelFacts, Rope
from edgerazor.core.contracts.loss import DistillationLoss, Signal, teacher_signals
from edgerazor.core.contracts.quantizer import Quantizer
from edgerazor.core.contracts.runtime import Runtime, TokenizerRuntime
from edgerazor.core.contracts.selector import LayerSelector

__all__ = [
    "ArchitectureAdapter",
    "Checkpoint",
    "ComparisonResult",
    "DistillationLoss",
    "ExportPlan",
    "ExportResult",
    "Exporter",
    "GGUFArchitecture",
    "LayerSelector",
    "ModelFacts",
    "NamedTensors",
    "Progress",
    "Quantizer",
    "Rope",
    "Runtime",
    "Signal",
    "TensorRole",
    "TokenizerRuntime",
    "teacher_signals",
]

REQUIRED_MEMBERS: dict[str, tuple[str, ...]] = {
    "quantizer": ("params", "rows_independent", "check_shape", "widths", "quantize", "fake_quantize"),
    "loss": ("params", "signals", "__call__"),
    "selector": ("weights",),
}
# Kinds of components whose contract is a base class.
BASE_CLASSES: dict[str, type] = {"adapter": ArchitectureAdapter, "exporter": Exporter}
PROTOCOL_NAMES = {
    "quantizer": "a Quantizer",
    "loss": "a DistillationLoss",
    "selector": "a LayerSelector",
    "adapter": "an ArchitectureAdapter",
    "exporter": "an Exporter",
}
