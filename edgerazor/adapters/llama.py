"""Llama and the decoders that are built like it."""

from dataclasses import replace
from typing import Any

from edgerazor.adapters.config_facts import completed_values
from edgerazor.adapters.decoder import DecoderAdapter
from edgerazor.core.contracts import GGUFArchitecture, ModelFacts

_EVERY_MATRIX = frozenset(("q", "k", "v", "o", "gate", "up", "down"))
_ATTENTION = frozenset({"attention_scale"})
_LLAMA = GGUFArchitecture("llama", permuted=True, biases=_EVERY_MATRIX, scales=_ATTENTION, frequencies=True)
_SMOLLM3 = GGUFArchitecture("smollm3", permuted=True, scales=_ATTENTION, unrotated_every=4)
_GRANITE = replace(
    _LLAMA,
    name="granite",
    scales=_ATTENTION | {"embedding_scale", "residual_scale", "logit_scale"},
)


class LlamaAdapter(DecoderAdapter):
    """Llama, with or without biases."""

    def facts(self, config: Any) -> ModelFacts:
        """What the configuration says."""
        return replace(super().facts(config), gguf=_LLAMA, genai="llama")


class MistralAdapter(DecoderAdapter):
    """Mistral: Llama with sliding windows and without biases."""

    def facts(self, config: Any) -> ModelFacts:
        """What the configuration says; llama.cpp runs it as a Llama."""
        return replace(super().facts(config), biases=frozenset(), gguf=_LLAMA, genai="mistral")


class Qwen2Adapter(DecoderAdapter):
    """Qwen2 and Qwen2.5: queries, keys and values have biases, whatever the configuration says."""

    def facts(self, config: Any) -> ModelFacts:
        """What the configuration says, and the biases."""
        biases = frozenset(("q", "k", "v"))
        architecture = GGUFArchitecture("qwen2", biases=biases, whole_heads=True)
        return replace(super().facts(config), biases=biases, gguf=architecture, genai="qwen2")


class SmolLM3Adapter(DecoderAdapter):
    """SmolLM3: Llama, of which every fourth layer does not rotate queries and keys."""

    def facts(self, config: Any) -> ModelFacts:
        """What the configuration says; its `no_rope_layers` are the layers without rotation."""
        return replace(super().facts(config), gguf=_SMOLLM3, genai="smollm3")


class GraniteAdapter(DecoderAdapter):
    """Granite 3: Llama with factors on embeddings, attention, residuals and logits."""

    def facts(self, config: Any) -> ModelFacts:
        """What the configuration says, the four factors among it."""
        values = completed_values(config)
        return replace(
            super().facts(config),
            embedding_scale=float(values["embedding_multiplier"]),
            attention_scale=float(values["attention_multiplier"]),
            residual_scale=float(values["residual_multiplier"]),
            logit_scale=1 / float(values["logits_scaling"]),
            gguf=_GRANITE,
            genai="granite",
        )

    def _logit_divisor(self, config: Any) -> float:
        return float(config.logits_scaling)
