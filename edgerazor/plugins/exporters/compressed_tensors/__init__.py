"""Exports in the format compressed-tensors, which vLLM, SGLang and Transformers load unchanged."""
