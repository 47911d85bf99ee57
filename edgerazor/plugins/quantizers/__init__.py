"""Quantizers: `int`, `ternary` and the row-mixed `sqmp`."""
