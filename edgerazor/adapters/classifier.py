"""What all image classifiers share: one prediction per image, by a linear head."""

from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Set
from typing import Any, ClassVar

from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import CONFIG_MAPPING

from edgerazor.adapters.head import check_attentions, interceptable, observed_head, unwrapped
from edgerazor.core.contracts import ArchitectureAdapter, Signal
from edgerazor.core.layers.linear import Interceptor
from edgerazor.core.layers.table import plain_layers
from edgerazor.core.outputs import ModelOutput
from edgerazor.errors import CheckpointError


class ImageClassifierAdapter(ArchitectureAdapter):
    """Models of `AutoModelForImageClassification` whose last layer is linear.

    `final_hidden` is `[batch, labels, hidden]`: the input of the head, once for every label that an image has.

    Attributes:
        kinds: names of the layer kinds that may be quantized.
    """

    kinds: ClassVar[Collection[str]] = ("linear", "conv")
    signals: ClassVar = frozenset({Signal.LOGITS, Signal.HIDDEN_STATES})

    @abstractmethod
    def head(self, model: Any) -> nn.Module:
        """The linear layer that gives the logits."""

    def states(self, hidden_states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """What transformers gives as hidden states, as `[batch, positions, features]`."""
        return hidden_states

    def quantizable(self, model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        """Every plain linear layer and convolution."""
        return plain_layers(model, self.kinds)

    def forward(
        self,
        model: nn.Module,
        batch: Mapping[str, Any],
        signals: Set[Signal],
        *,
        inside_head: Interceptor | None = None,
    ) -> ModelOutput:
        """Run the model as it is wrapped and keep what `signals` ask for.

        Args:
            model: the model, or what accelerate, DDP or FSDP2 made of it.
            batch: `pixel_values [batch, channels, height, width]`; `labels [batch, labels]` say how many an image has.
            signals: what the losses need.
            inside_head: called with `final_hidden` and the head while the head's own forward runs.

        Raises:
            PlanError: attentions are asked for, but the model's attention implementation keeps none.
        """
        labels = batch.get("labels")
        count = 1 if labels is None else labels.shape[-1]

        def places(pooled: Tensor) -> Tensor:
            return pooled.unsqueeze(1).expand(-1, count, -1)

        asked = {key: True for key, signal in _ASKED.items() if signal in signals}
        with observed_head(interceptable(self.head(unwrapped(model))), inside_head, places=places) as seen:
            output = model(pixel_values=batch["pixel_values"], **asked)
        if Signal.ATTENTIONS in signals:
            check_attentions(output.attentions, model)
        return ModelOutput(
            final_hidden=seen.hidden,
            head=seen.head,
            hidden_states=self.states(output.hidden_states) if Signal.HIDDEN_STATES in signals else None,
            attentions=output.attentions if Signal.ATTENTIONS in signals else None,
            inside_head=None if inside_head is None else output.logits,
        )


_ASKED = {"output_hidden_states": Signal.HIDDEN_STATES, "output_attentions": Signal.ATTENTIONS}


def whole_config(config: Any) -> Any:
    """A configuration of transformers, of itself or of the content of config.json.

    Raises:
        CheckpointError: its class refuses the content.
    """
    if not isinstance(config, Mapping):
        return config
    try:
        return CONFIG_MAPPING[config["model_type"]].from_dict(dict(config))
    except (StrictDataclassError, TypeError, ValueError, AttributeError, LookupError) as error:
        raise CheckpointError(f"config.json: {error}") from error


def pair(size: Any) -> tuple[int, int]:
    """Height and width, of which a configuration states one or both."""
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    return int(height), int(width)
