"""Quantization-aware distillation, on the Trainer of transformers."""

from edgerazor.pipeline.train.run import TrainResult, train

__all__ = ["TrainResult", "train"]
