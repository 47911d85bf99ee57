"""Measuring models on held-out text: checkpoints in Transformers, exported files in their own engines."""
