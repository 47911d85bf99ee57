"""What the code behind a declaration implements. Importing this package imports no torch."""

from edgerazor.core.contracts.adapter import ArchitectureAdapter, TensorRole
from edgerazor.core.contracts.classifier import ClassifierRuntime
from edgerazor.core.contracts.exporter import (
    Checkpoint,
    ComparisonResult,
    Exporter,
    ExportPlan,
    ExportResult,
    NamedTensors,
    Progress,
)
from edgerazor.core.contracts.facts import GGUFArchitecture, ImageFacts, ModelFacts, Rope
from edgerazor.core.contracts.loss import DistillationLoss, Signal, WeighsDivergences
from edgerazor.core.contracts.quantizer import Quantizer
from edgerazor.core.contracts.runtime import OneSequence, Runtime, TokenizerRuntime
from edgerazor.core.contracts.selector import CalibratedSelector, LayerSelector
from edgerazor.core.contracts.sequences import Sequences
from edgerazor.core.contracts.videos import VideoMessage

__all__ = [
    "ArchitectureAdapter",
    "CalibratedSelector",
    "Checkpoint",
    "ClassifierRuntime",
    "ComparisonResult",
    "DistillationLoss",
    "ExportPlan",
    "ExportResult",
    "Exporter",
    "GGUFArchitecture",
    "ImageFacts",
    "LayerSelector",
    "ModelFacts",
    "NamedTensors",
    "OneSequence",
    "Progress",
    "Quantizer",
    "Rope",
    "Runtime",
    "Sequences",
    "Signal",
    "TensorRole",
    "TokenizerRuntime",
    "VideoMessage",
    "WeighsDivergences",
]
