"""SmolLM2-135M-Instruct from the package index to low-bit files that chat, with figures: `make smollm2`."""
