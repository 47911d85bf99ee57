"""Turn a 16-bit language model into a 1.58- to 4-bit one. Names are imported on first use, at no cost before."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgerazor.checkpoint import load_model as load_model
    from edgerazor.checkpoint import open_checkpoint as open_checkpoint
    from edgerazor.checkpoint import pack_model as pack_model
    from edgerazor.checkpoint import verify_checkpoint as verify_checkpoint
    from edgerazor.core.contracts import ArchitectureAdapter as ArchitectureAdapter
    from edgerazor.core.contracts import CalibratedSelector as CalibratedSelector
    from edgerazor.core.contracts import DistillationLoss as DistillationLoss
    from edgerazor.core.contracts import Exporter as Exporter
    from edgerazor.core.contracts import LayerSelector as LayerSelector
    from edgerazor.core.contracts import Quantizer as Quantizer
    from edgerazor.core.contracts import Runtime as Runtime
    from edgerazor.core.contracts import Signal as Signal
    from edgerazor.core.contracts import WeighsDivergences as WeighsDivergences
    from edgerazor.core.discovery import load_plugins as load_plugins
    from edgerazor.core.hookspecs import hookimpl as hookimpl
    from edgerazor.core.outputs import LossOutput as LossOutput
    from edgerazor.core.plan import Plan as Plan
    from edgerazor.core.registry import Registry as Registry
    from edgerazor.core.tensor import QuantizedTensor as QuantizedTensor
    from edgerazor.errors import EdgeRazorError as EdgeRazorError
    from edgerazor.evaluate.checkpoints import evaluate_checkpoint as evaluate_checkpoint
    from edgerazor.inference.generate import generate as generate
    from edgerazor.models.load import plan_recipe as plan_recipe
    from edgerazor.schemas.components import AdapterParams as AdapterParams
    from edgerazor.schemas.components import ExporterParams as ExporterParams
    from edgerazor.schemas.components import LossParams as LossParams
    from edgerazor.schemas.components import QuantizerParams as QuantizerParams
    from edgerazor.schemas.components import SelectorParams as SelectorParams
    from edgerazor.schemas.recipe import Recipe as Recipe
    from edgerazor.schemas.recipe import load_recipe as load_recipe
    from edgerazor.training import train as train
    from edgerazor.version import __version__ as __version__

_HOMES = {
    "__version__": "version",
    "AdapterParams": "schemas.components",
    "ArchitectureAdapter": "core.contracts",
    "CalibratedSelector": "core.contracts",
    "DistillationLoss": "core.contracts",
    "EdgeRazorError": "errors",
    "Exporter": "core.contracts",
    "ExporterParams": "schemas.components",
    "LayerSelector": "core.contracts",
    "LossOutput": "core.outputs",
    "LossParams": "schemas.components",
    "Plan": "core.plan",
    "QuantizedTensor": "core.tensor",
    "Quantizer": "core.contracts",
    "QuantizerParams": "schemas.components",
    "Recipe": "schemas.recipe",
    "Registry": "core.registry",
    "Runtime": "core.contracts",
    "SelectorParams": "schemas.components",
    "Signal": "core.contracts",
    "WeighsDivergences": "core.contracts",
    "evaluate_checkpoint": "evaluate.checkpoints",
    "generate": "inference.generate",
    "hookimpl": "core.hookspecs",
    "load_model": "checkpoint",
    "load_plugins": "core.discovery",
    "load_recipe": "schemas.recipe",
    "open_checkpoint": "checkpoint",
    "pack_model": "checkpoint",
    "plan_recipe": "models.load",
    "train": "training",
    "verify_checkpoint": "checkpoint",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgerazor' has no attribute '{name}'")
    return getattr(import_module(f"edgerazor.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
