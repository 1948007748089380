"""Where a backbone's files are, and how they become a model on a device. Knows neither FFNs nor memories.

Files already on this machine are used without touching the network; only safetensors weights are read, and no code of a
checkpoint is run.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from locas_agent.backbone.fingerprint import weights_digest
from locas_agent.errors import BackboneError, ConfigurationError, MissingExtra

Dtype = Literal["float32", "bfloat16", "float16", "auto"]
Attention = Literal["auto", "sdpa", "flash"]

TINY = "tiny"
"""Name of the backbone bundled with the distribution."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_TINY_FOLDER = Path(__file__).parent / "tiny"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def find_source(name_or_path: str | Path) -> tuple[str, bool]:
    """Where to load from, and whether that is a hub id (so that the network may be tried)."""
    if name_or_path == TINY:
        if not (_TINY_FOLDER / "config.json").is_file():
            raise BackboneError(
                f"the bundled backbone is missing from {_TINY_FOLDER}; reinstall locas-agent, train it with "
                "scripts/train_tiny_backbone.py, or name a folder or a hub id"
            )
        return str(_TINY_FOLDER), False
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        return str(folder), False
    if isinstance(name_or_path, Path) or not _HUB_ID.fullmatch(name_or_path):
        raise BackboneError(f"no folder {str(name_or_path)!r}, and that is no hub id such as 'Qwen/Qwen3-0.6B'")
    return name_or_path, True


def load_parts(source: str, kernel: str, *, is_hub_id: bool) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model (in its stored dtype) and tokenizer: from this machine if possible, over the network only for a hub id."""
    for local in (True, False) if is_hub_id else (True,):
        options: dict[str, Any] = {"local_files_only": local, "trust_remote_code": False}
        try:
            tokenizer = AutoTokenizer.from_pretrained(source, **options)
            model = AutoModelForCausalLM.from_pretrained(
                source, dtype="auto", attn_implementation=kernel, use_safetensors=True, **options
            )
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            if local and is_hub_id:
                continue
            hint = (
                "check the id and the network"
                if is_hub_id
                else "it needs config.json, tokenizer files and safetensors weights"
            )
            raise BackboneError(f"cannot load a backbone from {source!r} ({hint}): {error}") from error
        return model, tokenizer
    raise AssertionError("the last attempt returns or raises")


def cast_parameters(model: PreTrainedModel, dtype: torch.dtype) -> str | None:
    """Cast the parameters in place; returns the digest of the stored weights where the cast may round them."""
    parameters = list(model.parameters())
    is_lossy = any(parameter.dtype != dtype and dtype.itemsize <= parameter.dtype.itemsize for parameter in parameters)
    digest = weights_digest(model) if is_lossy else None
    for parameter in parameters:  # not model.to(dtype): that would round the rotary frequencies as well
        parameter.data = parameter.data.to(dtype)
    model.config.dtype = dtype
    return digest


def find_device(wanted: str | torch.device | None) -> torch.device:
    """The device asked for, after one number has been put there; without a wish CUDA where there is one, else CPU."""
    try:
        device = torch.device(wanted if wanted is not None else "cuda" if torch.cuda.is_available() else "cpu")
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        raise ConfigurationError(
            f"device {str(wanted)!r} cannot be used here; this machine offers cpu"
            + (f" and cuda:0 to cuda:{torch.cuda.device_count() - 1}" if torch.cuda.is_available() else "")
        ) from error
    return device


def attention_kernel(attention: Attention, device: torch.device, dtype: Dtype) -> str:
    """Name of the attention implementation in transformers; flash-attn is never imported here."""
    if attention not in ("auto", "sdpa", "flash"):
        raise ConfigurationError(f"attention is one of auto, sdpa, flash, got {attention!r}")
    is_installed = importlib.util.find_spec("flash_attn") is not None
    is_usable = device.type == "cuda" and dtype in ("bfloat16", "float16")
    if attention == "flash" and not is_installed:
        raise MissingExtra.of("flash", "attention='flash'")
    if attention == "flash" and not is_usable:
        raise ConfigurationError(
            f"attention='flash' needs a CUDA device and dtype bfloat16 or float16, got {device.type} and {dtype}; use "
            "attention='sdpa'"
        )
    return "flash_attention_2" if attention != "sdpa" and is_installed and is_usable else "sdpa"
