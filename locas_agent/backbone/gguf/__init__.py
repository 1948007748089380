"""Backbones from the one-file checkpoints of llama.cpp, Ollama and LM Studio.

It says nothing about FFNs beyond refusing a file without them, and imports no memory.
"""

from locas_agent.backbone.gguf.model import load_gguf

__all__ = ["load_gguf"]
