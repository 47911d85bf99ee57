"""ViT, DeiT and BEiT: an encoder over patches of an image, whose class token or mean is classified."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from torch import nn

from edgerazor.adapters.classifier import ImageClassifierAdapter, pair, whole_config
from edgerazor.core.contracts import ImageFacts, ModelFacts, Signal, TensorRole
from edgerazor.errors import PlanError

_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.(.+)$")
_LAYER_PARTS = {
    "attention.q_proj": "q",
    "attention.k_proj": "k",
    "attention.v_proj": "v",
    "attention.o_proj": "o",
    "mlp.fc1": "up",
    "mlp.fc2": "down",
    "layernorm_before": "attention_norm",
    "layernorm_after": "mlp_norm",
}
_OUTER_PARTS = {"projection": "patches", "classifier": "head", "layernorm": "final_norm"}


class ViTAdapter(ImageClassifierAdapter):
    """Models of the type `vit`.

    Attributes:
        tokens: before the patches.
    """

    signals: ClassVar = ImageClassifierAdapter.signals | {Signal.ATTENTIONS}
    tokens: ClassVar[int] = 1

    def facts(self, config: Any) -> ModelFacts:
        """Sizes of the encoder; its context are the positions of one image."""
        config = whole_config(config)
        (height, width), patch = pair(config.image_size), pair(config.patch_size)
        return ModelFacts(
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            intermediate=config.intermediate_size,
            heads=config.num_attention_heads,
            kv_heads=config.num_attention_heads,
            head_dim=config.hidden_size // config.num_attention_heads,
            vocab=config.num_labels,
            context=(height // patch[0]) * (width // patch[1]) + self.tokens,
            tied=False,
            norm_eps=config.layer_norm_eps,
            ropes=(None,) * config.num_hidden_layers,
            windows=(None,) * config.num_hidden_layers,
            activation=config.hidden_act,
            biases=frozenset(("o", "up", "down", "head", "patches", *self.attention_biases(config))),
            image=ImageFacts(config.num_channels, height, width),
        )

    def attention_biases(self, config: Any) -> Iterable[str]:
        """Which of q, k and v have a bias."""
        return "qkv" if config.qkv_bias else ""

    def head(self, model: Any) -> nn.Module:
        """`classifier`.

        Raises:
            PlanError: the model has several, as a DeiT with a teacher's token.
        """
        if not hasattr(model, "classifier"):
            raise PlanError(f"{type(model).__name__} has no one classifier; only models with one can be distilled")
        return model.classifier  # type: ignore[no-any-return]

    def role(self, parameter_name: str) -> TensorRole:
        """Role by the names that encoders of transformers share."""
        module, _, leaf = parameter_name.rpartition(".")
        module = module if leaf in ("weight", "bias") else parameter_name
        layer = _LAYER.search(module)
        parts: Mapping[str, str] = _LAYER_PARTS if layer else _OUTER_PARTS
        kind = parts.get(layer[2] if layer else module.rpartition(".")[2], "other")
        return TensorRole(kind, int(layer[1]) if layer else None, leaf == "bias")


class DeiTAdapter(ViTAdapter):
    """Models of the type `deit`, with a second token."""

    tokens: ClassVar = 2


class BeitAdapter(ViTAdapter):
    """Models of the type `beit`; the scales of layers and the biases of relative positions stay at 16 bit."""

    def attention_biases(self, config: Any) -> Iterable[str]:
        """Keys have none, whatever the configuration says."""
        return "qv"
