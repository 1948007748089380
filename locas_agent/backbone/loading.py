"""How a backbone's files become a model on a device. Knows neither FFNs nor memories.

Files already on this machine are used without touching the network; only safetensors weights are read, and no code of a
checkpoint is run.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from locas_agent.backbone.fingerprint import weights_digest
from locas_agent.backbone.kernels.attention import register
from locas_agent.backbone.sources import BackboneSource
from locas_agent.errors import BackboneError, ConfigurationError, MissingExtra

Attention = Literal["auto", "sdpa", "flash"]


def load_parts(source: BackboneSource) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model (in its stored dtype, a .gguf file's in fp32) and tokenizer.

    They come from this machine if possible, over the network only for a hub id.
    """
    if source.kind == "gguf":
        return _from_one_file(Path(source.place))
    is_hub_id = source.kind == "hub"
    for local in (True, False) if is_hub_id else (True,):
        options: dict[str, Any] = {"local_files_only": local, "trust_remote_code": False}
        try:
            tokenizer = AutoTokenizer.from_pretrained(source.place, **options)
            model = AutoModelForCausalLM.from_pretrained(
                source.place, dtype="auto", attn_implementation="sdpa", use_safetensors=True, **options
            )
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            if local and is_hub_id:
                continue
            hint = "check the id and the network" if is_hub_id else _what_a_folder_needs(Path(source.place))
            raise BackboneError(f"cannot load a backbone from {source.place!r} ({hint}): {error}") from error
        return model, tokenizer
    raise AssertionError("the last attempt returns or raises")


def _from_one_file(path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtra.of("gguf", f"a .gguf file, {path.name}")
    from locas_agent.backbone.gguf.model import load_gguf  # it imports every tokenizer that such a file can hold

    return load_gguf(path)


def _what_a_folder_needs(folder: Path) -> str:
    files = sorted(file.name for file in folder.glob("*.gguf"))
    if files:
        return f"it holds {files[0]}: name that file"
    return "it needs config.json, tokenizer files and safetensors weights"


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


def check_attention(attention: Attention, device: torch.device) -> None:
    """Refuse what cannot be, before anything is loaded; flash-attn is never imported here.

    Raises:
        ConfigurationError: no such name, or flash-attn asked for on a device without CUDA.
        MissingExtra: flash-attn is not installed.
    """
    if attention not in ("auto", "sdpa", "flash"):
        raise ConfigurationError(f"attention is one of auto, sdpa, flash, got {attention!r}")
    if attention == "flash" and not _has_flash():
        raise MissingExtra.of("flash", "attention='flash'")
    if attention == "flash" and device.type != "cuda":
        raise _no_flash(device.type)


def attention_kernel(attention: Attention, device: torch.device, dtype: torch.dtype) -> str:
    """Name of the attention implementation in transformers.

    Raises:
        ConfigurationError: flash-attn cannot serve this device and dtype.
    """
    is_usable = device.type == "cuda" and dtype in (torch.bfloat16, torch.float16)
    if attention == "flash" and not is_usable:
        raise _no_flash(f"{device.type} and {str(dtype).removeprefix('torch.')}")
    if attention != "sdpa" and is_usable and _has_flash():
        return "flash_attention_2"
    return register() if attention == "auto" and device.type == "cpu" and dtype.itemsize < 4 else "sdpa"


def _has_flash() -> bool:
    return importlib.util.find_spec("flash_attn") is not None


def _no_flash(got: str) -> ConfigurationError:
    return ConfigurationError(
        f"attention='flash' needs a CUDA device and dtype bfloat16 or float16, got {got}; use attention='sdpa'"
    )
