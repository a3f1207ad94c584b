"""Export: one checkpoint for transformers and vLLM, 4-bit weights, and GGUF files for llama.cpp."""
