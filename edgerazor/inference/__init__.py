"""Running finished models: one interface over Transformers, llama.cpp and ONNX Runtime."""
