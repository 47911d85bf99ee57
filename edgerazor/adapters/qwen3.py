"""Qwen3: a decoder like Llama's with norms on queries and keys, which the shared base knows already."""

from edgerazor.adapters.decoder import DecoderAdapter


class Qwen3Adapter(DecoderAdapter):
    """Dense Qwen3 models."""
