"""Quantization-aware distillation, on the Trainer of transformers."""

from edgerazor.training.training import TrainResult, train

__all__ = ["TrainResult", "train"]
