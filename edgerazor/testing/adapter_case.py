"""What the laws of adapters share: a random model of the family, a batch, and the model made quantization-aware."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgerazor.core.contracts import ModelFacts, Signal
from edgerazor.core.outputs import Targets
from edgerazor.core.plan import Plan
from edgerazor.core.registry import Registry
from edgerazor.models.types import attention_options, auto_class, vocabulary_size
from edgerazor.schemas.components import AdapterParams
from edgerazor.testing.models import quantized, random_recipe, write_packed

Batch = Mapping[str, Any]


class AdapterCase:
    """An adapter and a model configuration.

    Attributes:
        adapter: built from its parameters.
        config: of the part that is trained.
        batch: what the model is given.
    """

    def __init__(self, params: AdapterParams, config: Any, batch: Batch | None, registry: Registry):
        registry.register_models()
        self.params, self.registry, self.adapter = params, registry, registry.build(params)
        self.model_type = config.model_type
        part = params.trained_parts.get(config.model_type)
        self.config = config if part is None else getattr(config, part)
        self.recipe = random_recipe(registry, kv_cache=bool({Signal.KEYS, Signal.VALUES} & self.adapter.signals))
        self.batch: Batch = {key: value for key, value in (batch or self._batch()).items() if key != "labels"}

    def model(self, *, attention: str = "sdpa") -> Any:
        """The same random float32 model every time; all its parameters are random, norms and biases too."""
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            options = {"attn_implementation": attention} if attention_options(self.config) else {}
            model: Any = auto_class(self.config).from_config(self.config, **options)
            model = model.float().eval()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.1 * torch.randn_like(parameter))
        return model

    def student(self) -> tuple[Any, Plan]:
        """The model, quantization-aware, and its plan."""
        model = self.model()
        return model, quantized(model, self.recipe, adapter=self.adapter, registry=self.registry)

    def write(self, student: nn.Module, plan: Plan, folder: Path) -> None:
        """Pack the student."""
        write_packed(student, folder, recipe=self.recipe, plan=plan, registry=self.registry)

    def logits(self, model: Any) -> Tensor:
        """What the model itself gives for the batch."""
        with torch.no_grad():
            found: Tensor = model(**self.batch).logits
        return found if self.facts.image is None else found.unsqueeze(1)

    def targets(self) -> Targets:
        """The tokens of the batch to be learned, or a class for each of its images."""
        if self.facts.image is None:
            return Targets.from_labels(self.batch["input_ids"], self.batch.get("attention_mask"))
        images = len(self.batch["pixel_values"])
        labels = (torch.arange(images) % self.facts.vocab).unsqueeze(1)
        mask = torch.ones(images, self.facts.context, dtype=torch.bool)
        return Targets.of_batch({"labels": labels, "label_shares": torch.ones(images, 1), "token_mask": mask})

    @property
    def positions(self) -> tuple[int, int]:
        """Rows of the batch, and positions in a hidden state of each."""
        if self.facts.image is not None:
            return len(self.batch["pixel_values"]), self.facts.context
        rows, columns = self.batch["input_ids"].shape
        return rows, columns

    @cached_property
    def facts(self) -> ModelFacts:
        """What the adapter says of the configuration."""
        return self.adapter.facts(self.config)

    @cached_property
    def text_config(self) -> Any:
        """Configuration of the model as losses see it."""
        return self.config.get_text_config() if self.facts.image is None else self.adapter.text_config(self.config)

    def _batch(self) -> Batch:
        """Two rows of tokens, the second one padded; or two images."""
        generator = torch.Generator().manual_seed(0)
        if (image := self.facts.image) is not None:
            sides = (min(image.height, 32), min(image.width, 32)) if image.any_size else (image.height, image.width)
            return {"pixel_values": torch.randn(2, image.channels, *sides, generator=generator)}
        size = vocabulary_size(self.config)
        mask = torch.ones(2, 9, dtype=torch.long)
        mask[1, 6:] = 0
        return {"input_ids": torch.randint(0, size, (2, 9), generator=generator), "attention_mask": mask}
