"""Plain functions on tensors, torch and triton only. `reference` is the definition and the CPU path."""
