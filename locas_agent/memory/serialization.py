"""A memory as safetensors bytes and back: named tensors, format version, checksum.

The header is written and read here, not by the safetensors library: its order of metadata changes from call to call,
and equal memories must give equal bytes. Any safetensors reader opens the result. Shapes: L layers, W width, D hidden
size.

Version 1 of the format holds rows as fp32 or bf16. Version 2 holds them as int8, each row with a scale of its own
(`quantization.py`). Versions 3 and 4 are versions 1 and 2 with one more word of metadata, `layers`: the layers of a
memory that does not stand beside the topmost ones. A release that does not know a version refuses it by its version and
not as damaged; a memory beside the topmost layers is written as it always was.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import Any, get_args

import torch
from torch import Tensor

from locas_agent.config import StoredAs
from locas_agent.errors import ConfigurationError, CorruptPayload, IncompatibleMemory
from locas_agent.memory.quantization import Int8Rows
from locas_agent.memory.slab import INITIALIZATIONS, LocasMemory, topmost

FORMAT = "locas-memory"
FLOAT_VERSION, INT8_VERSION = "1", "2"
_PLACED = {FLOAT_VERSION: "3", INT8_VERSION: "4"}
"""Version of a memory that stands beside other layers than the topmost, by that of one beside the topmost."""
MAX_HEADER_BYTES = 64 * 1024
"""Largest header read; a real one takes about 700 to 1,000 bytes."""

_ROWS = ("gate_rows", "up_rows", "down_rows")
_ROW_SCALES = ("gate_scales", "up_scales", "down_scales")
# The largest items first, so that every tensor starts at a multiple of its item size.
_FLOAT_TENSORS = ("neuron_indices", *_ROWS, "scale")
_INT8_TENSORS = ("neuron_indices", *_ROW_SCALES, "scale", *_ROWS)
_TENSORS = {
    FLOAT_VERSION: _FLOAT_TENSORS,
    INT8_VERSION: _INT8_TENSORS,
    _PLACED[FLOAT_VERSION]: _FLOAT_TENSORS,
    _PLACED[INT8_VERSION]: _INT8_TENSORS,
}
_METADATA = ("fingerprint", "format", "format_version", "hidden_size", "initialization", "n_layers", "width")
_TORCH_DTYPES = {"I64": torch.int64, "F32": torch.float32, "BF16": torch.bfloat16, "I8": torch.int8}
_ROW_DTYPES = {_FLOAT_TENSORS: (torch.float32, torch.bfloat16), _INT8_TENSORS: (torch.int8,)}
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_LAYERS = re.compile(r"-[1-9][0-9]{0,4}(,-[1-9][0-9]{0,4}){0,4095}")


def to_bytes(memory: LocasMemory, *, dtype: StoredAs = "float32") -> bytes:
    """Write a memory, its rows clipped, so that merging or serving it elsewhere needs no clip.

    What comes back of a number w: with "float32" w itself, bit for bit; with "bfloat16" w rounded, off by at most
    |w| / 512; with "int8" a multiple of its row's scale, off by at most 1/254 of the largest number in that row, and a
    row that rounding made longer than the clip allows is shortened to it. What "float32" and "int8" give is, written
    again, the same bytes.

    Args:
        memory: on any device.
        dtype: of the rows. bfloat16 halves the bytes, int8 quarters them but for one fp32 scale in each row. The
            output scale is always fp32.

    Returns:
        The same bytes for the same memory, always.

    Raises:
        ConfigurationError: unknown dtype.
        IncompatibleMemory: a value is not finite; such a memory must not be saved.
    """
    if dtype not in get_args(StoredAs):
        raise ConfigurationError(f"a memory is written as {', '.join(get_args(StoredAs))}, got {dtype!r}")
    clipped = memory.clipped()
    if not (torch.isfinite(clipped.slab).all() and torch.isfinite(clipped.scale).all()):
        raise IncompatibleMemory("the memory holds values that are not finite; keep the former revision")
    tensors = {"neuron_indices": clipped.neuron_indices, "scale": clipped.scale} | _row_tensors(clipped.slab, dtype)
    format_version = INT8_VERSION if dtype == "int8" else FLOAT_VERSION
    placed = {}
    if memory.layers != topmost(memory.n_layers):
        format_version = _PLACED[format_version]
        placed = {"layers": ",".join(str(layer) for layer in memory.layers)}
    metadata = placed | {
        "fingerprint": memory.fingerprint,
        "format": FORMAT,
        "format_version": format_version,
        "hidden_size": str(memory.hidden_size),
        "initialization": memory.initialization,
        "n_layers": str(memory.n_layers),
        "width": str(memory.width),
    }
    names = _TENSORS[format_version]
    body = b"".join(_tensor_bytes(tensors[name]) for name in names)
    header: dict[str, Any] = {"__metadata__": {**metadata, "checksum": _checksum(metadata, body)}}
    header.update(
        _layout({name: tensors[name].dtype for name in names}, memory.n_layers, memory.width, memory.hidden_size)
    )
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + body


def from_bytes(data: bytes, *, expect_fingerprint: str | None = None) -> LocasMemory:
    """Read a memory; nothing is used before all of it has been checked.

    Args:
        data: what `to_bytes` wrote, in any dtype.
        expect_fingerprint: of the backbone it is meant for; None skips that check.

    Returns:
        The memory on the CPU, its rows widened to fp32.

    Raises:
        CorruptPayload: not a memory, cut short, altered, or holding values that are not finite or scales that no row
            has.
        IncompatibleMemory: written in another format version or for another backbone.
    """
    header, body = _split(data)
    metadata = header.pop("__metadata__", None)
    layers, width, size = _check_metadata(metadata, expect_fingerprint)
    names = _TENSORS[metadata["format_version"]]
    dtypes = {
        name: _TORCH_DTYPES.get(str(entry.get("dtype"))) if isinstance(entry, dict) else None
        for name, entry in header.items()
    }
    known = {name: dtype for name, dtype in dtypes.items() if dtype is not None}
    if (
        set(header) != set(names)
        or known != _dtypes(names, known.get(_ROWS[0]))
        or known[_ROWS[0]] not in _ROW_DTYPES[names]
    ):
        raise CorruptPayload(f"expected tensors {', '.join(names)} in the dtypes of the format, got {sorted(header)}")
    layout = _layout(known, layers, width, size)
    if header != layout or len(body) != layout[names[-1]]["data_offsets"][1]:
        raise CorruptPayload("shapes, offsets or length of the tensors differ from what the metadata says")
    placement = _placement(metadata, layers)  # only now: a damaged number of layers may be any
    checksum = metadata.pop("checksum")
    if checksum != _checksum(metadata, body):
        raise CorruptPayload(
            "the checksum differs: the bytes were altered or cut; restore them from a backup or an older revision"
        )
    parts = {name: _tensor(body, layout[name], known[name]) for name in names}
    slab = _slab(parts)
    if (
        not (torch.isfinite(slab).all() and torch.isfinite(parts["scale"]).all())
        or int(parts["neuron_indices"].min()) < -1
    ):
        raise CorruptPayload("the memory holds values that are not finite, or neuron indices below -1")
    return LocasMemory(
        slab=slab,
        scale=parts["scale"],
        neuron_indices=parts["neuron_indices"],
        fingerprint=metadata["fingerprint"],
        initialization=metadata["initialization"],
        layers=placement,
    )


def as_stored(memory: LocasMemory, *, dtype: StoredAs) -> LocasMemory:
    """Return the memory that a reader of `to_bytes(memory, dtype=dtype)` gets, on the CPU.

    To judge a memory that is to be stored, look at this one.
    """
    return from_bytes(to_bytes(memory, dtype=dtype))


def _row_tensors(slab: Tensor, dtype: StoredAs) -> dict[str, Tensor]:
    """The tensors that hold the clipped rows."""
    if dtype == "int8":
        packed = Int8Rows.of(slab)
        return dict(zip((*_ROWS, *_ROW_SCALES), (*packed.values.unbind(1), *packed.scales.unbind(1)), strict=True))
    rows = slab if dtype == "float32" else slab.to(torch.bfloat16)
    return dict(zip(_ROWS, rows.unbind(1), strict=True))


def _slab(parts: dict[str, Tensor]) -> Tensor:
    """The rows of checked tensors as one slab, shape (L, 3, W, D), fp32."""
    rows = torch.stack([parts[name] for name in _ROWS], dim=1)
    if rows.dtype != torch.int8:
        return rows.float()
    return Int8Rows(values=rows, scales=torch.stack([parts[name] for name in _ROW_SCALES], dim=1)).dense()


def _dtypes(names: tuple[str, ...], rows: torch.dtype | None) -> dict[str, torch.dtype | None]:
    """The dtype that each tensor has where the rows have the given one."""
    return {
        name: rows if name in _ROWS else torch.int64 if name == "neuron_indices" else torch.float32 for name in names
    }


def _split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and tensor bytes; a name that occurs twice is refused."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 2 <= length <= MAX_HEADER_BYTES or len(data) < 8 + length:
        raise CorruptPayload(
            f"{len(data)} bytes with a header of {length}: not a memory, or cut short (a header takes at most "
            f"{MAX_HEADER_BYTES})"
        )
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
    found = metadata.get("format_version")
    if not isinstance(found, str) or found not in _TENSORS:
        raise IncompatibleMemory(
            f"format version {str(found)[:20]!r}, this release reads {' and '.join(_TENSORS)}; use the release that "
            "wrote it"
        )
    names = [*_METADATA, *(["layers"] if found in _PLACED.values() else [])]
    if set(metadata) != {*names, "checksum"} or not all(isinstance(value, str) for value in metadata.values()):
        raise CorruptPayload(f"expected the metadata {', '.join(names)} and checksum, got {sorted(metadata)[:12]}")
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


def _placement(metadata: dict[str, str], n_layers: int) -> tuple[int, ...]:
    """The layers that checked metadata name, numbered from the last; the topmost where they name none."""
    if "layers" not in metadata:
        return topmost(n_layers)
    text = metadata["layers"]
    layers = tuple(int(number) for number in text.split(",")) if _LAYERS.fullmatch(text) else ()
    if len(layers) != n_layers or list(layers) != sorted(set(layers)) or layers == topmost(n_layers):
        raise CorruptPayload("the layers in the metadata are not valid")
    return layers


def _layout(dtypes: dict[str, torch.dtype], layers: int, width: int, size: int) -> dict[str, dict[str, Any]]:
    """The header entries of all tensors, one after the other without a hole."""
    shapes = {name: [layers, width, size] for name in _ROWS} | {
        name: [layers, width] for name in ("neuron_indices", *_ROW_SCALES)
    }
    shapes["scale"] = [layers]
    names = {dtype: name for name, dtype in _TORCH_DTYPES.items()}
    layout, start = {}, 0
    for name in _INT8_TENSORS if "gate_scales" in dtypes else _FLOAT_TENSORS:
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
