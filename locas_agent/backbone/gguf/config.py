"""From the metadata of a .gguf file to the config of a model of transformers.

Which key of llama.cpp is which field is transformers' own table. What that table leaves out, and would leave out in
silence, is read here or refused here: how positions are scaled, and several tokens that end a text.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from math import pi
from typing import Any, cast

from transformers import AutoConfig, PreTrainedConfig
from transformers.integrations.ggml import GGUF_CONFIG_MAPPING

from locas_agent.backbone.gguf.header import Header
from locas_agent.errors import UnsupportedBackbone

_RENAMED = {"qwen2moe": "qwen2_moe", "qwen3moe": "qwen3_moe", "gpt-oss": "gpt_oss", "minimax-m2": "minimax_m2"}
"""Architectures that transformers calls otherwise."""
_TEXT_MODELS = {"gemma3": "gemma3_text", "gemma4": "gemma4_text"}
"""Architectures whose file holds the text half of a model of transformers."""
_NO_MODELS = ("general", "tokenizer")
"""Entries of the table that are none."""
_LAID_OUT_OTHERWISE = ("lfm2", "minimax_m2", "qwen35", "qwen35moe")
"""Architectures whose tensors are turned into another layout by another part of transformers."""
_READ = ("gemma2", "gemma3", "llama (Mistral and SmolLM too)", "phi3", "qwen2", "qwen3", "stablelm")
"""What a message names: the architectures of the table that have a gated FFN in each layer."""
_NORMED_UNDER = "ffn_norm"
_ENDS = ("eos", "eot", "eom")
"""What llama.cpp calls tokens that end a text, a turn or a message."""
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""How every published Llama from 3.1 on scales its positions, but for the factor."""


def config_of(header: Header) -> PreTrainedConfig:
    """Make the config that a file describes.

    Raises:
        UnsupportedBackbone: an architecture that is not read from a .gguf file, or positions scaled in a
            way that cannot be read from it.
    """
    fields = _fields(header)
    ends = ends_of(header)
    if len(ends) > 1:
        fields["eos_token_id"] = ends
    return AutoConfig.for_model(**fields)


def ends_of(header: Header) -> list[int]:
    """Return the tokens that end a text, a turn or a message, none twice."""
    found = [header.number(f"tokenizer.ggml.{end}_token_id") for end in _ENDS]
    return list(dict.fromkeys(token for token in found if token is not None))


def _fields(header: Header) -> dict[str, Any]:
    architecture = header.architecture
    model_type = _RENAMED.get(architecture, architecture)
    tables: Mapping[str, Mapping[str, str | None]] = cast(Any, GGUF_CONFIG_MAPPING)
    names = tables.get(model_type)
    if names is None or model_type in (*_NO_MODELS, *_LAID_OUT_OTHERWISE):
        raise UnsupportedBackbone(
            f"{str(header.path)!r} has the architecture {architecture!r}, which is not read from a .gguf file; read "
            f"are {', '.join(_READ)}; or name the folder or hub id of the original checkpoint"
        )
    fields: dict[str, Any] = {"model_type": _TEXT_MODELS.get(model_type, model_type)}
    for prefix, renames in ((architecture, names), ("tokenizer", tables["tokenizer"])):
        for key, name in renames.items():
            if name is not None and (value := header.metadata.get(f"{prefix}.{key}")) is not None:
                fields[name] = value
    fields.setdefault("vocab_size", header.metadata.get("tokenizer.ggml.tokens"))
    head = header.number(f"{architecture}.attention.key_length")
    if head is not None and "attention.key_length" not in names:
        fields.setdefault("head_dim", head)
    fields["tie_word_embeddings"] = "output.weight" not in header.tensors
    if architecture == "stablelm":
        fields["use_qkv_bias"] = any(name.endswith("attn_q.bias") for name in header.tensors)
        fields["use_parallel_residual"] = not any(_NORMED_UNDER in name for name in header.tensors)
    _scale_positions(header, fields)
    return fields


def _scale_positions(header: Header, fields: dict[str, Any]) -> None:
    """Say in the config how positions are scaled, where the file does.

    Llama 3.1 and its successors keep a factor for each frequency in a tensor. The config has to name the rule that it
    comes from, so that an exported model scales in the same way; the rule is checked against the tensor.
    """
    kind = header.metadata.get(f"{header.architecture}.rope.scaling.type")
    foreign = [name for name in header.tensors if name.startswith("rope_factors")]
    if foreign or kind not in (None, "none"):
        raise UnsupportedBackbone(
            f"{str(header.path)!r} scales its positions ({kind or foreign[0]}) in a way that no .gguf file says "
            "in full; name the folder or hub id of the original checkpoint"
        )
    if "rope_freqs.weight" not in header.tensors:
        return
    factors = _floats(header, "rope_freqs.weight")
    theta = float(fields.get("rope_theta", 10000.0))
    rule = {"rope_type": "llama3", "rope_theta": theta, "factor": max(factors), **_LLAMA3}
    expected = [_llama3_factor(theta ** (-at / len(factors)), max(factors)) for at in range(len(factors))]
    if any(abs(found - wanted) > 1e-3 * wanted for found, wanted in zip(factors, expected, strict=True)):
        raise UnsupportedBackbone(
            f"{str(header.path)!r} scales its positions by factors (rope_freqs.weight) that are not those of Llama 3.1 "
            "and its successors; name the folder or hub id of the original checkpoint"
        )
    fields["rope_parameters"] = rule
    fields.pop("rope_theta", None)


def _llama3_factor(frequency: float, factor: float) -> float:
    """By how much a frequency is divided: short waves not at all, long ones by `factor`, those between smoothly."""
    turns = _LLAMA3["original_max_position_embeddings"] * frequency / (2 * pi)
    low, high = _LLAMA3["low_freq_factor"], _LLAMA3["high_freq_factor"]
    share = min(max((turns - low) / (high - low), 0.0), 1.0)
    return 1.0 / ((1.0 - share) / factor + share)


def _floats(header: Header, name: str) -> list[float]:
    place = header.tensors[name]
    with header.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return [float(value) for value in struct.unpack_from(f"<{place.n_values}f", data, place.begin)]
