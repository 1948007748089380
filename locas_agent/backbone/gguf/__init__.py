"""Backbones from the one-file checkpoints of llama.cpp, Ollama and LM Studio.

It is imported when such a file is loaded, and needs the extra `gguf`. It imports no memory.
"""
