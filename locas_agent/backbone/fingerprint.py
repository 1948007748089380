"""What identifies a backbone: one digest over its config, its tokenizer and its weights."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_VOLATILE = frozenset(
    {"transformers_version", "dtype", "torch_dtype", "_name_or_path", "name_or_path", "architectures", "use_cache"}
    | {"attn_implementation", "_attn_implementation", "_attn_implementation_internal", "experts_implementation"}
    | {"_experts_implementation", "_experts_implementation_internal"}
)
"""Config fields that say how or by whom a model was loaded, not what it computes."""

_CHUNK = 1 << 22
"""Numbers widened to fp32 at a time, 16 MiB: a whole embedding would double the memory in use."""


def fingerprint_of(model: Any, tokenizer: PreTrainedTokenizerBase, digest_of_weights: str) -> str:
    """Combine config, tokenizer and weights into one digest.

    Args:
        model: gives its class and config.
        tokenizer: gives vocabulary, rules and chat template.
        digest_of_weights: from `weights_digest`.

    Returns:
        SHA-256, 64 hex digits.
    """
    parts = {
        "model": type(model).__name__,
        "config": _stable(model.config.to_dict()),
        "tokenizer": _tokenizer_state(tokenizer),
        "chat_template": tokenizer.chat_template,
        "weights": digest_of_weights,
    }
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def weights_digest(model: nn.Module) -> str:
    """Digest of all parameters and persistent buffers by name, shape and value, values widened to fp32.

    Args:
        model: on any device, in any float dtype.

    Returns:
        SHA-256, 64 hex digits; equal for equal values, whatever float dtype holds them.
    """
    tensors = sorted(model.state_dict().items())
    with ThreadPoolExecutor(max_workers=4) as pool:  # hashlib releases the GIL
        digests = list(pool.map(lambda item: _tensor_digest(item[1]), tensors))
    total = hashlib.sha256()
    for (name, tensor), digest in zip(tensors, digests, strict=True):
        total.update(f"{name}\0{tuple(tensor.shape)}\0{digest}\n".encode())
    return total.hexdigest()


def _tensor_digest(tensor: Tensor) -> str:
    digest = hashlib.sha256()
    for chunk in torch.split(tensor.detach().reshape(-1), _CHUNK):
        wide = chunk.to(device="cpu", dtype=torch.float32 if chunk.is_floating_point() else torch.int64)
        digest.update(wide.contiguous().numpy().data)
    return digest.hexdigest()


def _stable(value: Any) -> Any:
    """A config value without volatile fields, at every depth."""
    if isinstance(value, dict):
        return {str(key): _stable(inner) for key, inner in value.items() if key not in _VOLATILE}
    if isinstance(value, list | tuple):
        return [_stable(inner) for inner in value]
    return value


def _tokenizer_state(tokenizer: PreTrainedTokenizerBase) -> Any:
    """What decides which ids a text gets; truncation and padding are left out, since any call may change them."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        state: dict[str, Any] = {"class": type(tokenizer).__name__, "vocab": tokenizer.get_vocab()}
    else:
        state = json.loads(backend.to_str())
        state = {key: value for key, value in state.items() if key not in ("truncation", "padding")}
    state["special_tokens_map"] = {key: str(value) for key, value in tokenizer.special_tokens_map.items()}
    return state
