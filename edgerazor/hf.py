"""`import edgerazor.hf` makes `from_pretrained` of transformers read packed and quantization-aware checkpoints."""

from edgerazor.checkpoint.hugging_face import EdgeRazorConfig, register

register()

__all__ = ["EdgeRazorConfig"]
