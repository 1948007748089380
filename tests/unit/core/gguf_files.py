"""Small .gguf files of random models, written by llama.cpp's own package, for tests that load them.

They are made from models of transformers, so that what is loaded can be compared with what was written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers

from tests.conftest import CHAT_TEMPLATE, SPECIAL, byte_tokenizer
from tests.unit.core.architectures import HEAD, SIZES

MERGED = ("12", "ĊĊ", "ĠĠ")
"""Tokens beyond the bytes: a rule that splits text first decides whether they are ever used."""
SIZE = 256 + len(SPECIAL) + len(MERGED)
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", HEAD | {"tie_word_embeddings": False}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", HEAD | {"tie_word_embeddings": False}),
    "gemma3": ("Gemma3", HEAD | {"sliding_window": 6, "tie_word_embeddings": True}),
    "phi3": ("Phi3", {"tie_word_embeddings": False}),
}
Change = Callable[[gguf.GGUFWriter], object]


def random_model(architecture: str, **options: Any) -> Any:
    """Make a random model of an architecture, its norms and biases random too."""
    family, own = FAMILIES[architecture]
    config = getattr(transformers, f"{family}TextConfig" if architecture == "gemma3" else f"{family}Config")
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForCausalLM")(config(**SIZES | {"vocab_size": SIZE} | own | options))
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def write_gguf(
    path: Path,
    model: Any,
    architecture: str,
    *,
    form: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    rule: str = "gpt-2",
    template: str | None = CHAT_TEMPLATE,
    tokenizer: Change | None = None,
    tensors: Mapping[str, np.ndarray] | None = None,
    change: Change = lambda _: None,
) -> Path:
    """Write a model and the tokenizer of bytes.

    Args:
        path: of the file.
        model: what is written.
        architecture: as llama.cpp calls it.
        form: of every matrix whose rows it fits; what does not fit and what is no matrix stays in fp32.
        rule: by which text is split, as the file names it.
        template: of chats, if there is to be one.
        tokenizer: writes another tokenizer in place of that of bytes.
        tensors: in place of the model's.
        change: adds to the metadata.
    """
    writer = gguf.GGUFWriter(path, architecture)
    _describe(writer, model.config)
    if tokenizer is not None:
        tokenizer(writer)
    else:
        _tokenizer(writer, rule, template)
    change(writer)
    for name, values in (tensors_of(model, architecture) if tensors is None else tensors).items():
        block = gguf.GGML_QUANT_SIZES[form][0]
        kind = form if values.ndim == 2 and values.shape[-1] % block == 0 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tensors_of(model: Any, architecture: str) -> dict[str, np.ndarray]:
    """Return the tensors of a model as llama.cpp's converter lays them out."""
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(kinds[architecture], model.config.num_hidden_layers)
    found = {}
    for name, tensor in model.state_dict().items():
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if target is None or (target == "output.weight" and model.config.tie_word_embeddings):
            continue
        values = tensor.float().numpy()
        if architecture == "llama" and (".attn_q." in target or ".attn_k." in target):
            heads = model.config.num_attention_heads if ".attn_q." in target else model.config.num_key_value_heads
            values = values.reshape(heads, 2, -1, values.shape[-1]).swapaxes(1, 2).reshape(values.shape)
        if architecture == "gemma3" and target.endswith("norm.weight"):
            values = values + 1
        found[target] = np.ascontiguousarray(values)
    return found


def _describe(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_rope_dimension_count(head)
    writer.add_key_length(head)
    if config.model_type != "gemma3_text":
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if getattr(config, "sliding_window", None):
        writer.add_sliding_window(config.sliding_window)


def _tokenizer(writer: gguf.GGUFWriter, rule: str, template: str | None) -> None:
    vocabulary = byte_tokenizer().get_vocab()
    tokens = [*sorted(vocabulary, key=vocabulary.__getitem__), *MERGED]
    control = [gguf.TokenType.CONTROL if token in SPECIAL else gguf.TokenType.NORMAL for token in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(rule)
    writer.add_token_list(tokens)
    writer.add_token_types(control)
    writer.add_token_merges([" ".join(token) for token in MERGED])
    writer.add_eos_token_id(vocabulary[SPECIAL[2]])
    writer.add_pad_token_id(vocabulary[SPECIAL[0]])
    if template is not None:
        writer.add_chat_template(template)
