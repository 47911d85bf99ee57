"""Benchmarks of lm-evaluation-harness on every runtime, read from a user's own files; needs the extra `eval`."""
