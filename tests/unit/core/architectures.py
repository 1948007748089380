"""Tiny random models of every architecture the core must carry, and of those it must refuse."""

from __future__ import annotations

from typing import Any

import torch
import transformers

SIZES: dict[str, Any] = {
    "vocab_size": 259,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": 258,
    "pad_token_id": 256,
}
HEAD = {"head_dim": 8}
SUPPORTED: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3": ("Qwen3", HEAD),
    "qwen2": ("Qwen2", {}),
    "llama": ("Llama", HEAD | {"mlp_bias": True}),
    "mistral": ("Mistral", HEAD | {"sliding_window": 6}),
    "gemma": ("Gemma", HEAD),
    "gemma2": ("Gemma2", HEAD | {"sliding_window": 6, "final_logit_softcapping": 3.0}),
    "gemma3": ("Gemma3", HEAD | {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}),
    "phi3": ("Phi3", {}),
}
REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3_moe": ("Qwen3Moe", HEAD | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}),
    "mixtral": ("Mixtral", HEAD | {"num_local_experts": 4}),
    "opt": ("OPT", {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "gpt2": ("GPT2", {}),
}


def build(name: str, **changes: Any) -> Any:
    """A random model by the name of its architecture, every parameter random (norms and biases too).

    `changes` are options of its config.
    """
    family, options = (SUPPORTED | REFUSED)[name]
    config_class = getattr(transformers, f"{family}TextConfig" if name == "gemma3" else f"{family}Config")
    torch.manual_seed(0)
    sizes = {key: SIZES[key] for key in SIZES if name != "gpt2" or "token_id" in key} | options
    sizes |= changes
    if name == "gpt2":
        sizes |= {"vocab_size": 259, "n_embd": 32, "n_layer": 2, "n_head": 4}
    model = getattr(transformers, f"{family}ForCausalLM" if name != "gpt2" else "GPT2LMHeadModel")(
        config_class(**sizes)
    )
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model
