"""GGUF for llama.cpp: codes and scales packed into its blocks, never rounded again."""
