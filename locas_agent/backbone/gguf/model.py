"""From a .gguf file to a model of transformers in fp32, with its tokenizer.

The package `gguf` dequantises and says which tensor is which; in what the layout of some tensors differs is
transformers' own table. The loader of transformers is not used: it parses the vocabulary again and again, takes several
times as long, and shows a bar.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor

from locas_agent.backbone.ffn import find_ffns
from locas_agent.backbone.gguf.config import config_of
from locas_agent.backbone.gguf.header import Header, cut_short, read_header
from locas_agent.backbone.gguf.tokenizer import tokenizer_of
from locas_agent.errors import BackboneError, UnsupportedBackbone

_MANY_LAYERS = 1024

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.float32]


def load_gguf(path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load model and tokenizer of one file.

    Args:
        path: the file; it is only read.

    Returns:
        The model on the CPU, in fp32 whatever the file is quantised to, and its tokenizer.

    Raises:
        BackboneError: no GGUF file, a damaged one, or one in which tensors are missing.
        UnsupportedBackbone: an architecture without gated FFNs, or one that cannot be read from such a file.
    """
    header = read_header(path)
    empty = _empty(header)
    find_ffns(empty.get_decoder(), name=str(path))  # before the tensors are read
    tokenizer = tokenizer_of(header)
    return _filled(empty, _tensors(header, empty), path), tokenizer


def _empty(header: Header) -> Any:
    """Make the model that a header describes, its weights still without memory.

    Raises:
        BackboneError: the header describes none.
    """
    n_layers = header.number(f"{header.architecture}.block_count") or 0
    if n_layers > max(len(header.tensors), _MANY_LAYERS):
        raise BackboneError(f"{str(header.path)!r} is damaged: it names {n_layers} layers; download or copy it again")
    try:
        config = config_of(header)
        model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
        if model_class is None:
            raise UnsupportedBackbone(
                f"{str(header.path)!r} has the architecture {header.architecture!r}, which is no causal language model"
            )
        with torch.device("meta"):
            return model_class(config)
    except (ArithmeticError, LookupError, RuntimeError, StrictDataclassError, TypeError, ValueError) as error:
        raise BackboneError(
            f"{str(header.path)!r} describes no model of the architecture {header.architecture!r}: {error}; convert it "
            "again with a present llama.cpp"
        ) from error


def _tensors(header: Header, empty: Any) -> dict[str, Tensor]:
    """Return every tensor of the model that the file holds, in fp32, under the model's name for it."""
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    if header.architecture not in kinds:
        raise UnsupportedBackbone(
            f"{str(header.path)!r} has the architecture {header.architecture!r}, which the installed package gguf does "
            "not have; install a newer one"
        )
    names: Any = gguf.get_tensor_name_map(kinds[header.architecture], empty.config.num_hidden_layers)
    layouts: Any = TENSOR_PROCESSORS
    layout = layouts.get(header.architecture, TensorProcessor)(config=empty.config.to_dict())
    data = np.memmap(header.path, dtype=np.uint8, mode="r")
    found: dict[str, Tensor] = {}
    for target, expected in empty.state_dict().items():
        name = names.get_name(target, try_suffixes=(".weight", ".bias"))
        place = header.tensors.get(name) if name is not None else None
        if name is None or place is None:
            continue  # a head that is tied to the embedding; anything else is missed when the model is filled
        try:
            values = layout.process(weights=_dequantised(header, name, data), name=name).weights
        except ValueError as error:
            raise BackboneError(
                f"{str(header.path)!r}: {name} does not fit the heads that the file names ({error}); download or copy "
                "it again"
            ) from error
        if values.shape != tuple(expected.shape):
            raise BackboneError(
                f"{str(header.path)!r}: {name} has the shape {values.shape}, expected {tuple(expected.shape)}; convert "
                "it again with a present llama.cpp"
            )
        found[target] = torch.from_numpy(np.require(values, requirements=["C", "W"]))  # what is not quantised is mapped
    return found


def _dequantised(header: Header, name: str, data: Bytes) -> Numbers:
    """Return one tensor in fp32.

    Raises:
        BackboneError: the file ends before the tensor does.
        UnsupportedBackbone: it is quantised in a way that the package `gguf` does not know.
    """
    place = header.tensors[name]
    try:
        form = gguf.GGMLQuantizationType(place.form)
        values, size = gguf.GGML_QUANT_SIZES[form]
        end = place.begin + place.n_values // values * size
        if end > len(data):
            raise cut_short(header.path, f"after {len(data)} bytes, and {name} ends at {end}")
        rows = np.asarray(data[place.begin : end]).reshape(-1, place.shape[-1] // values * size)
        return np.asarray(gguf.dequantize(rows, form), dtype=np.float32).reshape(place.shape)
    except (KeyError, ValueError, NotImplementedError) as error:
        raise UnsupportedBackbone(
            f"{str(header.path)!r}: {name} cannot be dequantised (form {place.form}): {error}; take another "
            "quantisation of the same model"
        ) from error


def _filled(empty: Any, tensors: dict[str, Tensor], path: Path) -> PreTrainedModel:
    model, info = type(empty).from_pretrained(
        None,
        config=empty.config,
        state_dict=tensors,
        dtype=torch.float32,
        attn_implementation="sdpa",
        output_loading_info=True,
    )
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise BackboneError(
            f"{str(path)!r} lacks {len(missing)} tensors of its architecture, {missing[0]} among them; convert it again"
        )
    loaded: PreTrainedModel = model
    return loaded
