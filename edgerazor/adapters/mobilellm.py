"""MobileLLM: Llama's names throughout; the layers of a model with layer sharing are quantized once and run twice."""

from edgerazor.adapters.decoder import DecoderAdapter


class MobileLLMAdapter(DecoderAdapter):
    """MobileLLM models of the types `mobilellm` and `llama`."""
