"""ResNet: stages of convolutions; the mean of the last one is classified."""

import re
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

from edgerazor.adapters.classifier import ImageClassifierAdapter, whole_config
from edgerazor.core.contracts import ImageFacts, ModelFacts, TensorRole

_BLOCK = re.compile(r"stages\.(\d+)\.layers\.(\d+)\.(?:layer\.(\d+)|(shortcut))\.convolution$")
_HEAD = re.compile(r"(^|\.)classifier\.1$")
_USUAL_SIZE = 224


class ResNetAdapter(ImageClassifierAdapter):
    """Models of the type `resnet`. A layer is a stage, and a stage's whole map of features is one position."""

    def facts(self, config: Any) -> ModelFacts:
        """Stages and classes; there are no heads and no positions besides that of the image."""
        config = whole_config(config)
        stages = len(config.depths)
        return ModelFacts(
            layers=stages,
            hidden=config.hidden_sizes[-1],
            intermediate=0,
            heads=0,
            kv_heads=0,
            head_dim=0,
            vocab=config.num_labels,
            context=1,
            tied=False,
            norm_eps=0.0,
            ropes=(None,) * stages,
            windows=(None,) * stages,
            activation=config.hidden_act,
            biases=frozenset({"head"}),
            image=ImageFacts(config.num_channels, _USUAL_SIZE, _USUAL_SIZE, any_size=True),
        )

    def head(self, model: Any) -> nn.Module:
        """The linear layer behind the pooling."""
        return model.classifier[-1]  # type: ignore[no-any-return]

    def states(self, hidden_states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Maps `[batch, channels, height, width]` as one position each."""
        return tuple(state.flatten(1).unsqueeze(1) for state in hidden_states)

    def role(self, parameter_name: str) -> TensorRole:
        """`stem`, `head`, and convolutions by their place in a stage, such as `block0_conv1`."""
        module, _, leaf = parameter_name.rpartition(".")
        if module.endswith("embedder.embedder.convolution"):
            return TensorRole("stem", None, leaf == "bias")
        if _HEAD.search(module):
            return TensorRole("head", None, leaf == "bias")
        block = _BLOCK.search(module)
        if block is None:
            return TensorRole("other")
        place = "shortcut" if block[4] else f"conv{block[3]}"
        return TensorRole(f"block{block[2]}_{place}", int(block[1]), leaf == "bias")

    def text_config(self, config: Any) -> Any:
        """Stages for layers; their widths differ."""
        widths = (config.embedding_size, *config.hidden_sizes)
        return SimpleNamespace(num_hidden_layers=len(config.depths), hidden_size=widths)
