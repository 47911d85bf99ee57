"""The method "edgerazor" for transformers: `from_pretrained` and `save_pretrained` of packed and QAT checkpoints.

Only four hooks of transformers are used (before and after loading, the state dict to save, dequantize): those have one
meaning in all supported versions (TRANSFORMERS 2).
"""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers.quantizers.auto import (
    AUTO_QUANTIZATION_CONFIG_MAPPING,
    AUTO_QUANTIZER_MAPPING,
    register_quantization_config,
    register_quantizer,
)
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from edgerazor.checkpoint.file_check import FileCheck, check_loaded_files
from edgerazor.checkpoint.learned_scales import LEARNED_SCALES
from edgerazor.checkpoint.packed_files import PACKED_NAME, PackedFiles
from edgerazor.checkpoint.section import METHOD, PackedSection, QATSection, dtype_name, read_section
from edgerazor.checkpoint.storage import check_weights, pack_modules, unquantized_dtype
from edgerazor.checkpoint.swap import fill_packed, swap_in_packed, swap_out_packed
from edgerazor.checkpoint.write import build_section
from edgerazor.core.apply import apply_plan
from edgerazor.core.discovery import load_plugins
from edgerazor.core.layers.attention import apply_kv_quantizer
from edgerazor.core.packing import Tensors
from edgerazor.core.plan import Plan, build_plan
from edgerazor.core.registry import Registry
from edgerazor.core.resolved_recipe import resolve_recipe
from edgerazor.errors import CheckpointError, PluginError, RecipeError
from edgerazor.schemas.recipe import Recipe, load_recipe


class EdgeRazorConfig(QuantizationConfigMixin):
    """`quantization_config` as transformers carries it about; what it holds is checked when it is used.

    `verify: False` in it, set on the configuration that is given to `from_pretrained`, loads a packed folder without
    comparing its files with their digests.

    `from_pretrained(float_folder, quantization_config=EdgeRazorConfig(mode="qat", recipe=...))` gives a model for
    quantization-aware training, mode "packed" rounds it; `recipe` is a file, a dict or a `Recipe`.

    Args:
        registry: loaded plugins; None loads them, as where transformers builds this from config.json alone, which holds
            none (`load_model` adds the caller's).
        content: of `quantization_config`.
    """

    def __init__(self, *, registry: Registry | None = None, **content: Any):
        self.quant_method = METHOD
        self.registry = registry or load_plugins()
        self.verify = bool(content.pop("verify", True))
        recipe = content.get("recipe")
        if isinstance(recipe, (str, Path, Recipe)):
            loaded = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, registry=self.registry)
            content["recipe"] = loaded.to_dict()
        self.content = {**content, "quant_method": METHOD}

    @property
    def mode(self) -> str | None:
        """ "packed" or "qat"."""
        return self.content.get("mode")

    def __deepcopy__(self, memo: Any) -> "EdgeRazorConfig":
        """A copy of the same content, which does not change; transformers copies configurations several times."""
        return copy(self)

    def to_dict(self) -> dict[str, Any]:
        """The content, as config.json holds it."""
        return dict(self.content)


def qat_config(
    recipe: Recipe, plan: Plan, *, registry: Registry, unquantized: torch.dtype = torch.bfloat16
) -> EdgeRazorConfig:
    """What makes `save_pretrained` of a student in training write a folder that loads as one again.

    Set it as `student.config.quantization_config` after `apply_plan`.

    Args:
        recipe: the recipe of the run.
        plan: the plan that was applied; its modules are compared when the folder is loaded.
        registry: loaded plugins.
        unquantized: the 16-bit dtype of the base model, see `unquantized_dtype`; packing rounds to it what is not
            quantized.
    """
    modules = sorted(module.name for module in plan.modules if module.params)
    content = recipe.model_copy(update={"quantization": plan.quantization}).to_dict()
    section = QATSection(modules=modules, unquantized_dtype=dtype_name(unquantized), recipe=content)
    return EdgeRazorConfig(registry=registry, **section.to_dict())


class EdgeRazorQuantizer(HfQuantizer):
    """What transformers calls while it loads and saves."""

    requires_calibration = False
    quantization_config: EdgeRazorConfig

    def __init__(self, quantization_config: EdgeRazorConfig, **kwargs: Any):
        super().__init__(quantization_config, **kwargs)
        self.registry = quantization_config.registry
        self.section: PackedSection | QATSection | None = None
        self._file_check: FileCheck | None = None
        self._fill: Callable[[], None] | None = None
        if self.pre_quantized:
            self.section = read_section(quantization_config.to_dict(), "config.json")
        elif quantization_config.mode not in ("qat", "packed") or "recipe" not in quantization_config.content:
            raise CheckpointError(
                "quantization_config: to quantize a 16-bit model give mode ('qat' or 'packed') and recipe"
            )

    def is_serializable(self) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return self.quantization_config.mode == "qat"

    @property
    def is_qat_trainable(self) -> bool:
        return self.is_trainable

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        if isinstance(self.section, PackedSection):
            files = kwargs.get("checkpoint_files")
            if self.quantization_config.verify:
                self._file_check = check_loaded_files(files or (), model.config)
            self._swap_in(model, self.section, files or (), _only_device(kwargs.get("device_map")))
        return model

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        if isinstance(self.section, PackedSection):
            check, self._file_check = self._file_check, None  # a thread has no copy
            fill, self._fill = self._fill, None
            if fill is not None:
                fill()
            if check is not None:
                check.finish()
            self._finish_packed(model)
            return model
        recipe = self._recipe()
        if self.section is not None and recipe.training.scale_learning_rate is not None:
            raise CheckpointError(
                f"holds latent weights and, in {LEARNED_SCALES}, their trained scales, which transformers does not "
                "read; pack it with `edgerazor pack`, or go on with its run"
            )
        adapter = self.registry.adapter_for(recipe.model.family or model.config.model_type)
        plan = build_plan(model, recipe.quantization, adapter=adapter, registry=self.registry)
        if self.section is not None and self.section.modules is not None:
            _check_same(plan, self.section.modules)
        apply_plan(model, plan, registry=self.registry)
        if self.quantization_config.mode == "packed":
            self._pack(model, plan, recipe)
        else:
            model.config.quantization_config = self.quantization_config = qat_config(
                recipe, plan, registry=self.registry, unquantized=unquantized_dtype(model.config)
            )
        return model

    def get_state_dict_and_metadata(self, model: Any) -> tuple[dict[str, Any] | None, dict[str, str]]:
        if not isinstance(self.section, PackedSection):
            return None, {}
        guard = {self.section.guard: torch.zeros(1, dtype=torch.uint8)}
        return {**model.state_dict(), **guard}, {}

    def _dequantize(self, model: Any, dtype: torch.dtype | None = None) -> Any:
        if not isinstance(self.section, PackedSection):
            raise CheckpointError("only packed models can be dequantized; a model in training holds its latent weights")
        swap_out_packed(model, dtype or model.dtype)
        return model

    def _swap_in(self, model: Any, section: PackedSection, files: Sequence[str], device: torch.device | None) -> None:
        """Put packed modules in place; transformers fills them only where a model is spread over several places."""
        stored = PackedFiles(files) if files and all(str(file).endswith(".safetensors") for file in files) else None
        by_loader = stored is None or device is None
        packed = swap_in_packed(model, section, input_quantizer=self._build("activations"), allocate=by_loader)
        if stored is not None:
            stored.check(model, packed)
            if device is not None:
                model._keys_to_ignore_on_load_unexpected |= {PACKED_NAME}
                self._fill = partial(stored.fill, packed, device)

    def _finish_packed(self, model: Any) -> None:
        model.requires_grad_(False)
        # Saving writes the names of the packed format; transformers would split those of experts.
        model._weight_conversions = []
        quantizer = self._build("kv_cache")
        if quantizer is not None:
            apply_kv_quantizer(model, quantizer)

    def _pack(self, model: Any, plan: Plan, recipe: Recipe) -> None:
        """Pack a model in memory, as loading its packed checkpoint would."""
        check_weights(model, plan)
        tensors: Tensors = {}
        packed = pack_modules(model, plan, tensors.update)
        self.section = build_section(
            packed,
            plan,
            resolve_recipe(recipe, registry=self.registry, plan=plan),
            unquantized=unquantized_dtype(model.config),
        )
        swap_in_packed(model, self.section, input_quantizer=self._build("activations"))
        fill_packed(model, tensors)
        model.config.quantization_config = self.quantization_config = EdgeRazorConfig(
            registry=self.registry, **self.section.to_dict()
        )
        self._finish_packed(model)

    def _build(self, key: str) -> Any:
        """The quantizer of `activations` or `kv_cache` from its stored parameters; None where there is none."""
        return build_quantizer(getattr(self.section, key), self.registry, f"config.json: quantization_config.{key}")

    def _recipe(self) -> Recipe:
        try:
            return load_recipe(self.quantization_config.content["recipe"], registry=self.registry)
        except RecipeError as error:
            raise CheckpointError(f"config.json: quantization_config.recipe:\n{error}") from error


def build_quantizer(params: Mapping[str, Any] | None, registry: Registry, where: str) -> Any:
    """A quantizer from parameters that a file stores.

    Raises:
        CheckpointError: its plugin is missing, or the parameters are not valid; `where` comes first in the message.
    """
    if params is None:
        return None
    values = dict(params)
    name = str(values.pop("name", None))
    try:
        return registry.build(registry.params("quantizer", name, **values))
    except (PluginError, ValueError) as error:
        raise CheckpointError(f"{where}: {error}") from error


def _only_device(device_map: Any) -> torch.device | None:
    """Where a whole model goes; None where its parts go to several places, or are not to be held in memory."""
    if device_map is None:
        return torch.device("cpu")
    places = set(device_map.values()) if isinstance(device_map, Mapping) else set()
    return torch.device(places.pop()) if len(places) == 1 and not places & {"disk", "meta"} else None


def _check_same(plan: Plan, stored: list[str]) -> None:
    different = set(stored) ^ {module.name for module in plan.modules if module.params}
    if different:
        raise CheckpointError(
            "config.json: quantization_config.modules: the recipe does not quantize the same modules any more: "
            + ", ".join(sorted(different)[:5])
        )


def register(registry: Registry) -> None:
    """Make transformers know the method "edgerazor" and the adapters' own model types; safe to call again."""
    registry.register_models()
    if METHOD not in AUTO_QUANTIZATION_CONFIG_MAPPING:
        register_quantization_config(METHOD)(EdgeRazorConfig)
    if METHOD not in AUTO_QUANTIZER_MAPPING:
        register_quantizer(METHOD)(EdgeRazorQuantizer)
