"""Layers that quantize in training and layers that compute from packed codes."""
