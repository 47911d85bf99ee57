"""Llama and the decoders that are built like it."""

from dataclasses import replace
from typing import Any

from edgerazor.adapters.decoder import DecoderAdapter
from edgerazor.core.contracts import GGUFArchitecture, ModelFacts

_EVERY_MATRIX = frozenset(("q", "k", "v", "o", "gate", "up", "down"))
_LLAMA = GGUFArchitecture("llama", permuted=True, biases=_EVERY_MATRIX)


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
        architecture = GGUFArchitecture("qwen2", biases=biases)
        return replace(super().facts(config), biases=biases, gguf=architecture, genai="qwen2")
