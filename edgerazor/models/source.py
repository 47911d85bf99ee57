"""A 16-bit model on disk or on the hub, opened once: what is read of it is kept, so no command reads it twice."""

import copy
import logging
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from edgerazor.core.contracts import ArchitectureAdapter
from edgerazor.core.registry import Registry
from edgerazor.errors import CheckpointError, first_line
from edgerazor.models.finite import check_finite
from edgerazor.models.image_processor import check_processor
from edgerazor.models.special_tokens import drop_impossible_padding
from edgerazor.models.stored_weights import StoredWeights
from edgerazor.models.tied import has_own_head, own_head, says_tied, untie
from edgerazor.models.types import attention_options, auto_class, classifies_images, trained_config, vocabulary_size
from edgerazor.schemas.preset import local_config

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "tiktoken.model",
    "tekken.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
)
# What a processor is saved as beside the files of its tokenizer.
PROCESSOR_FILES = (
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "chat_template.json",
)


class ModelSource:
    """A model by its name; configuration, tokenizer and adapter are read when they are first asked for.

    Args:
        name: folder or hub name.
        registry: loaded plugins; their model types become known to transformers.
        revision: of the hub repository.
        tokenizer: folder or hub name of another tokenizer; None is the one beside the model.
        family: model type whose adapter is taken; None is the one in config.json.
    """

    def __init__(
        self,
        name: str,
        *,
        registry: Registry,
        revision: str | None = None,
        tokenizer: str | None = None,
        family: str | None = None,
    ):
        self.name, self.revision, self.family, self.registry = name, revision, family, registry
        self._tokenizer_name = tokenizer

    @cached_property
    def config(self) -> PretrainedConfig:
        """What config.json says of the part that is trained: of the thinker for a Qwen2.5-Omni. Not to be changed.

        Raises:
            CheckpointError: there is no such model, or it is already packed to low bits.
        """
        config = trained_config(self._whole_config, self.registry)
        quantized: Any = getattr(config, "quantization_config", None)
        if quantized is not None:
            content = quantized if isinstance(quantized, dict) else quantized.to_dict()
            method = getattr(content.get("quant_method"), "value", content.get("quant_method"))
            if (method, content.get("mode")) != ("edgerazor", "qat"):
                raise CheckpointError(f"{self.name}: is already quantized ({method}); expected a 16-bit model")
        if self.own_head is not None:
            untie(config)
        drop_impossible_padding(config)
        return config

    @cached_property
    def own_head(self) -> str | None:
        """Name of the head's weight where config.json ties it to the embedding, but the files hold other values."""
        found = local_config(self.name, self.revision)
        return own_head(found.parent, self._whole_config) if found is not None else None

    @property
    def vocabulary_size(self) -> int:
        """Tokens that the model numbers."""
        return vocabulary_size(self.config)

    @cached_property
    def adapter(self) -> ArchitectureAdapter:
        """The adapter of its family.

        Raises:
            PluginError: no adapter covers the model type.
        """
        adapter: ArchitectureAdapter = self.registry.adapter_for(self.family or self.config.model_type)
        return adapter

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the model.

        Raises:
            CheckpointError: there is none that can be used.
        """
        if self._tokenizer_name not in (None, self.name):
            return self._read(AutoTokenizer, self._tokenizer_name, "tokenizer")
        return self._read(AutoTokenizer, self.name, "tokenizer", config=self._whole_config)

    @property
    def has_tokenizer(self) -> bool:
        """False for a model folder without the files of a tokenizer, unless another tokenizer is named."""
        folder = Path(self.name)
        if self._tokenizer_name is not None or not folder.is_dir():
            return True
        return any((folder / file).exists() for file in _TOKENIZER_FILES)

    @cached_property
    def image_processor(self) -> Any:
        """The image processor of the model, by Pillow.

        Raises:
            CheckpointError: there is none that can be used, or it is that of another model.
            PluginError: no adapter covers the model type.
        """
        if self._lacks_image_processor:
            raise CheckpointError(
                f"{self.name}: has no preprocessor_config.json; save the model's image processor there"
            )
        processor = self._read(AutoImageProcessor, self.name, "preprocessor_config.json", backend="pil")
        facts = self.registry.adapter_for(self.family or self._whole_config.model_type).facts(self._whole_config)
        check_processor(processor, facts.image, self.name)
        return processor

    @property
    def companion(self) -> Any:
        """What makes numbers of the model's inputs, tokenizer or image processor; None for a folder without one."""
        if self.classifies_images:
            return None if self._lacks_image_processor else self.image_processor
        return self.tokenizer if self.has_tokenizer else None

    @property
    def processor_files(self) -> list[Path]:
        """Files by which a language model that sees makes numbers of pictures and sound; none of other models."""
        found = local_config(self.name, self.revision)
        sees = getattr(self.config, "vision_config", None) is not None
        return [path for name in PROCESSOR_FILES if (path := found.parent / name).is_file()] if found and sees else []

    @property
    def classifies_images(self) -> bool:
        """Whether the model gives a class for a picture."""
        return classifies_images(self._whole_config)

    def build_meta_model(self) -> nn.Module:
        """The modules and shapes on the meta device: no weight is loaded or allocated."""
        return build_meta_model(self._own_config())

    def load(self, dtype: torch.dtype | str = "auto") -> nn.Module:
        """Load the weights, for evaluation, on the CPU.

        Args:
            dtype: of the parameters; "auto" is the one they are stored in.

        Raises:
            CheckpointError: a tensor is missing, has another shape, or holds NaN or infinity; the message names it.
        """
        model, config = self._load(dtype)
        if says_tied(config) and has_own_head(model):
            untie(model.config)
        for name, parameter in model.named_parameters():
            check_finite(parameter, f"{self.name}: {name}")
        return model.eval()

    def load_unread(self) -> tuple[nn.Module, StoredWeights] | None:
        """The model on the meta device, and its weights to be read one by one; None where only `load` can tell.

        That is so for models of a hub, weights in training, and files that transformers converts while it loads.

        Raises:
            CheckpointError: as for `load`, but for values that are not finite.
        """
        if not Path(self.name).is_dir() or hasattr(self.config, "quantization_config"):
            return None
        model, _ = self._load("auto", device_map={"": "meta"})
        weights = StoredWeights.found(model, Path(self.name))
        return (model.eval(), weights) if weights is not None else None

    def load_by_parts(self, dtype: torch.dtype) -> tuple[nn.Module, StoredWeights | None]:
        """The model for evaluation, to compute with a part of it at a time: buffers are there, parameters are read.

        Where `load_unread` can only load, so does this: the whole model, and None.

        Args:
            dtype: of the parameters.

        Raises:
            CheckpointError: as for `load_unread`.
        """
        if self.load_unread() is None:
            return self.load(dtype), None
        config = self._own_config()
        with init_empty_weights(include_buffers=False):
            model = auto_class(config).from_config(config, **attention_options(config), dtype=dtype)
        return model.eval(), StoredWeights(model, Path(self.name))

    def _load(self, dtype: torch.dtype | str, **options: Any) -> tuple[Any, PretrainedConfig]:
        config = self._own_config()
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        level = transformers_logging.get_verbosity()
        transformers_logging.set_verbosity(logging.ERROR)
        try:
            model, loaded = auto_class(config).from_pretrained(
                self.name,
                config=config,
                dtype=dtype,
                revision=self.revision,
                **attention_options(config),
                output_loading_info=True,
                **options,
            )
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:
            raise CheckpointError(f"{self.name}: cannot be loaded: {error}") from error
        finally:
            transformers_logging.set_verbosity(level)
        if loaded["missing_keys"]:
            missing = sorted(loaded["missing_keys"])
            raise CheckpointError(f"{self.name}: tensors are missing: {', '.join(missing[:5])} ({len(missing)} in all)")
        return model, config

    @property
    def _lacks_image_processor(self) -> bool:
        return Path(self.name).is_dir() and not (Path(self.name) / "preprocessor_config.json").exists()

    @cached_property
    def _whole_config(self) -> PretrainedConfig:
        return self._read(AutoConfig, self.name, "config.json")

    def _own_config(self) -> PretrainedConfig:
        """A copy for a model, which writes into its configuration."""
        return copy.deepcopy(self.config)

    def _read(self, loader: Any, name: str | None, what: str, **known: Any) -> Any:
        self.registry.register_models()
        try:
            return loader.from_pretrained(name, revision=self.revision if name == self.name else None, **known)
        except Exception as error:  # a damaged file or a missing package may raise anything in there
            if Path(str(name)).exists():
                reason = first_line(error)
            else:
                reason = "there is no such folder, and no model of that name could be fetched or found in the cache"
            raise CheckpointError(f"{name}: no usable {what}: {reason}") from error


def build_meta_model(config: PretrainedConfig) -> nn.Module:
    """The model that a configuration describes, on the meta device: no weight is loaded or allocated."""
    with torch.device("meta"):
        return auto_class(config).from_config(config, **attention_options(config))
