"""`import edgerazor.hf` makes `from_pretrained` of transformers read packed and quantization-aware checkpoints."""

from edgerazor.checkpoint.hugging_face import EdgeRazorConfig, register
from edgerazor.core.discovery import load_plugins

register(load_plugins())

__all__ = ["EdgeRazorConfig"]
