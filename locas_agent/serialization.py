"""A memory as safetensors bytes and back: named tensors, format version, checksum.

Knows nothing of users, revisions or where the bytes are kept.

The header is written and read here, not by the safetensors library: its order of metadata changes from call to call,
and equal memories must give equal bytes. Any safetensors reader opens the result. Shapes: L layers, W width, D hidden
size.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import Any, Literal

import torch
from torch import Tensor

from locas_agent.errors import ConfigurationError, CorruptPayload, IncompatibleMemory
from locas_agent.memory import INITIALIZATIONS, LocasMemory

FORMAT = "locas-memory"
FORMAT_VERSION = "1"
MAX_HEADER_BYTES = 64 * 1024
"""Largest header read; a real one takes about 700 bytes."""

_ROWS = ("gate_rows", "up_rows", "down_rows")
_TENSORS = (
    "neuron_indices",
    *_ROWS,
    "scale",
)  # int64 first, so that every tensor starts at a multiple of its item size
_METADATA = ("fingerprint", "format", "format_version", "hidden_size", "initialization", "n_layers", "width")
_TORCH_DTYPES = {"I64": torch.int64, "F32": torch.float32, "BF16": torch.bfloat16}
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")


def to_bytes(memory: LocasMemory, *, dtype: Literal["float32", "bfloat16"] = "float32") -> bytes:
    """Write a memory, its rows clipped, so that merging or serving it elsewhere needs no clip.

    Args:
        memory: on any device.
        dtype: of the rows. float32 comes back bit for bit; bfloat16 halves the bytes and rounds. The scale is always
            fp32.

    Returns:
        The same bytes for the same memory, always.

    Raises:
        ConfigurationError: unknown dtype.
        IncompatibleMemory: a value is not finite; such a memory must not be saved.
    """
    if dtype not in ("float32", "bfloat16"):
        raise ConfigurationError(f"a memory is written as float32 or bfloat16, got {dtype!r}")
    clipped = memory.clipped()
    if not (torch.isfinite(clipped.slab).all() and torch.isfinite(clipped.scale).all()):
        raise IncompatibleMemory("the memory holds values that are not finite; keep the former revision")
    rows = torch.float32 if dtype == "float32" else torch.bfloat16
    tensors = {
        "neuron_indices": clipped.neuron_indices,
        "gate_rows": clipped.gate_rows.to(rows),
        "up_rows": clipped.up_rows.to(rows),
        "down_rows": clipped.down_rows.to(rows),
        "scale": clipped.scale,
    }
    metadata = {
        "fingerprint": memory.fingerprint,
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "hidden_size": str(memory.hidden_size),
        "initialization": memory.initialization,
        "n_layers": str(memory.n_layers),
        "width": str(memory.width),
    }
    body = b"".join(_tensor_bytes(tensors[name]) for name in _TENSORS)
    header: dict[str, Any] = {"__metadata__": {**metadata, "checksum": _checksum(metadata, body)}}
    header.update(_layout({name: tensors[name].dtype for name in _TENSORS}, memory.n_layers, memory.width, memory.hidden_size))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + body


def from_bytes(data: bytes, *, expect_fingerprint: str | None = None) -> LocasMemory:
    """Read a memory; nothing is used before all of it has been checked.

    Args:
        data: what `to_bytes` wrote.
        expect_fingerprint: of the backbone it is meant for; None skips that check.

    Returns:
        The memory on the CPU, its rows widened to fp32.

    Raises:
        CorruptPayload: not a memory, cut short, altered, or holding values that are not finite.
        IncompatibleMemory: written in another format version or for another backbone.
    """
    header, body = _split(data)
    metadata = header.pop("__metadata__", None)
    layers, width, size = _check_metadata(metadata, expect_fingerprint)
    dtypes = {name: _TORCH_DTYPES.get(str(entry.get("dtype"))) if isinstance(entry, dict) else None for name, entry in header.items()}
    row_dtypes = {dtypes.get(name) for name in _ROWS}
    is_known = row_dtypes in ({torch.float32}, {torch.bfloat16}) and dtypes.get("neuron_indices") == torch.int64
    if set(dtypes) != set(_TENSORS) or not is_known or dtypes["scale"] != torch.float32:
        raise CorruptPayload(f"expected tensors {', '.join(_TENSORS)} in the dtypes of the format, got {sorted(header)}")
    known = {name: dtype for name, dtype in dtypes.items() if dtype is not None}
    layout = _layout(known, layers, width, size)
    if header != layout or len(body) != layout["scale"]["data_offsets"][1]:
        raise CorruptPayload("shapes, offsets or length of the tensors differ from what the metadata says")
    checksum = metadata.pop("checksum")
    if checksum != _checksum(metadata, body):
        raise CorruptPayload("the checksum differs: the bytes were altered or cut; restore them from a backup or an older revision")
    parts = {name: _tensor(body, layout[name], known[name]) for name in _TENSORS}
    slab = torch.stack([parts[name].float() for name in _ROWS], dim=1)  # (L, 3, W, D)
    if not (torch.isfinite(slab).all() and torch.isfinite(parts["scale"]).all()) or int(parts["neuron_indices"].min()) < -1:
        raise CorruptPayload("the memory holds values that are not finite, or neuron indices below -1")
    return LocasMemory(
        slab=slab,
        scale=parts["scale"],
        neuron_indices=parts["neuron_indices"],
        fingerprint=metadata["fingerprint"],
        initialization=metadata["initialization"],
    )


def _split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and tensor bytes; a name that occurs twice is refused."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 2 <= length <= MAX_HEADER_BYTES or len(data) < 8 + length:
        raise CorruptPayload(f"{len(data)} bytes with a header of {length}: not a memory, or cut short (a header takes at most {MAX_HEADER_BYTES})")
    try:
        header = json.loads(data[8 : 8 + length].decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise CorruptPayload("the header of the memory is no valid JSON") from error
    if not isinstance(header, dict):
        raise CorruptPayload("the header of the memory is no JSON object")
    return header, data[8 + length :]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a name occurs twice")
    return dict(pairs)


def _check_metadata(metadata: Any, expect_fingerprint: str | None) -> tuple[int, int, int]:
    """Layers, width and hidden size, after format, version and fingerprint have been checked."""
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise CorruptPayload(f"expected the format {FORMAT!r}; this is another safetensors file, or damaged")
    if metadata.get("format_version") != FORMAT_VERSION:
        raise IncompatibleMemory(
            f"format version {str(metadata.get('format_version'))[:20]!r}, this release reads {FORMAT_VERSION!r}; use the release that wrote it"
        )
    if set(metadata) != {*_METADATA, "checksum"} or not all(isinstance(value, str) for value in metadata.values()):
        raise CorruptPayload(f"expected the metadata {', '.join(_METADATA)} and checksum, got {sorted(metadata)[:12]}")
    numbers = [metadata[name] for name in ("n_layers", "width", "hidden_size")]
    is_valid = _FINGERPRINT.fullmatch(metadata["fingerprint"]) and metadata["initialization"] in INITIALIZATIONS
    if not is_valid or not all(_NUMBER.fullmatch(number) for number in numbers):
        raise CorruptPayload("fingerprint, initialization or sizes in the metadata are not valid")
    if expect_fingerprint is not None and metadata["fingerprint"] != expect_fingerprint:
        raise IncompatibleMemory(
            f"the memory belongs to the backbone with fingerprint {metadata['fingerprint'][:12]}, "
            f"expected {expect_fingerprint[:12]}; load the backbone it was trained on"
        )
    layers, width, size = (int(number) for number in numbers)
    return layers, width, size


def _layout(dtypes: dict[str, torch.dtype], layers: int, width: int, size: int) -> dict[str, dict[str, Any]]:
    """The header entries of all tensors, one after the other without a hole."""
    shapes = {name: [layers, width, size] for name in _ROWS} | {"neuron_indices": [layers, width], "scale": [layers]}
    names = {dtype: name for name, dtype in _TORCH_DTYPES.items()}
    layout, start = {}, 0
    for name in _TENSORS:
        end = start + math.prod(shapes[name]) * dtypes[name].itemsize
        layout[name] = {"dtype": names[dtypes[name]], "shape": shapes[name], "data_offsets": [start, end]}
        start = end
    return layout


def _checksum(metadata: dict[str, str], body: bytes) -> str:
    """SHA-256 over the sorted metadata and all tensor bytes, hex."""
    text = json.dumps(metadata, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode() + b"\0" + body).hexdigest()


def _tensor_bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()


def _tensor(body: bytes, entry: dict[str, Any], dtype: torch.dtype) -> Tensor:
    start, end = entry["data_offsets"]
    return torch.frombuffer(bytearray(body[start:end]), dtype=dtype).reshape(entry["shape"])
