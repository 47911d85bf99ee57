"""Exporter for ONNX Runtime."""
