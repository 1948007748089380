"""What stands at the beginning of a .gguf file: its metadata, and where each tensor lies.

The bytes of the tensors are left alone, and no list of tokens is built: a vocabulary is passed over in milliseconds.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

from locas_agent.errors import BackboneError

Value = str | int | float | bool | list[int | float | bool]
"""A value of the metadata; of a list of texts only its length is kept."""

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Types of a value that have one size, by their number in the file, as `struct` calls them."""
_ALIGNMENT = 32
"""Tensors begin at multiples of it, unless the file says otherwise."""
_MOST_DIMENSIONS = 8


@dataclass(frozen=True)
class TensorPlace:
    """Where a tensor lies, and in which form.

    Attributes:
        shape: as torch counts it, the last dimension the fastest.
        form: number of its way of quantising, as `gguf.GGMLQuantizationType` counts them.
        begin: its first byte, counted from the beginning of the file.
    """

    shape: tuple[int, ...]
    form: int
    begin: int

    @property
    def n_values(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)


@dataclass(frozen=True)
class Header:
    """What a file says before its tensors."""

    path: Path
    metadata: Mapping[str, Value] = field(repr=False)
    tensors: Mapping[str, TensorPlace] = field(repr=False)

    @property
    def architecture(self) -> str:
        """Its architecture, as llama.cpp calls it."""
        return str(self.metadata["general.architecture"])

    def number(self, key: str) -> int | None:
        """Return a whole number of the metadata, None where it has none of that name."""
        value = self.metadata.get(key)
        return value if isinstance(value, int) else None


def read_header(path: Path) -> Header:
    """Read the header of a file.

    Raises:
        BackboneError: it is no GGUF file, one of a version that nothing writes any more, one of several parts, or it
            ends inside its header.
    """
    try:
        with path.open("rb") as file:
            beginning = file.read(4)
            if beginning != _MAGIC:
                raise BackboneError(
                    f"{str(path)!r} is no GGUF file: it begins with {beginning!r}, expected {_MAGIC!r}; name a .gguf "
                    "file, or the folder of a checkpoint"
                )
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                header = _parse(path, data)
    except OSError as error:
        raise BackboneError(f"cannot read {str(path)!r}: {error.strerror}") from error
    except (struct.error, UnicodeDecodeError, OverflowError, MemoryError) as error:
        raise cut_short(path, "inside its header") from error
    parts = header.number("split.count") or 1
    if parts > 1:
        raise BackboneError(
            f"{str(path)!r} is one of {parts} parts of a checkpoint; join them (llama-gguf-split --merge) and name the "
            "joined file"
        )
    return header


def cut_short(path: Path, where: str) -> BackboneError:
    """Word the error for a file that ends too early, or whose numbers make no sense."""
    return BackboneError(f"{str(path)!r} is damaged or cut short: it ends {where}; download or copy it again")


class _Reader:
    """A place in the bytes of a header, moved on by what is read there."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self.at = 4

    def numbers(self, form: str, count: int = 1) -> tuple[int | float | bool, ...]:
        layout = f"<{count}{form}"
        found = struct.unpack_from(layout, self._data, self.at)
        self.at += struct.calcsize(layout)
        return found

    def whole(self, form: str) -> int:
        return int(self.numbers(form)[0])

    def skip_text(self) -> slice:
        length = self.whole("Q")
        begin, self.at = self.at, self.at + length
        if self.at > len(self._data):
            raise struct.error("a text that goes on behind the end")
        return slice(begin, self.at)

    def text(self) -> str:
        return self._data[self.skip_text()].decode()

    def value(self, kind: int) -> Value:
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            return self.numbers(self._form(kind))[0]
        inner, count = self.whole("I"), self.whole("Q")
        if inner == _STRING:
            for _ in range(count):
                self.skip_text()
            return count
        return list(self.numbers(self._form(inner), count))

    def _form(self, kind: int) -> str:
        if kind not in _NUMBERS:
            raise struct.error(f"a value of type {kind}")
        return _NUMBERS[kind]


def _parse(path: Path, data: mmap.mmap) -> Header:
    reader = _Reader(data)
    version = reader.whole("I")
    if version not in _VERSIONS:
        raise BackboneError(
            f"{str(path)!r} is GGUF of version {version}, expected one of {_VERSIONS}; convert it again with a present "
            "llama.cpp"
        )
    n_tensors, n_values = reader.whole("Q"), reader.whole("Q")
    metadata: dict[str, Value] = {}
    for _ in range(n_values):
        key = reader.text()
        metadata[key] = reader.value(reader.whole("I"))
    if not isinstance(metadata.get("general.architecture"), str):
        raise BackboneError(f"{str(path)!r} does not say its architecture (general.architecture); convert it again")
    found: list[tuple[str, tuple[int, ...], int, int]] = []
    for _ in range(n_tensors):
        name, n_dimensions = reader.text(), reader.whole("I")
        if n_dimensions > _MOST_DIMENSIONS:
            raise struct.error(f"a tensor of {n_dimensions} dimensions")
        shape = tuple(int(size) for size in reversed(reader.numbers("Q", n_dimensions)))
        found.append((name, shape, reader.whole("I"), reader.whole("Q")))
    alignment = metadata.get("general.alignment")
    step = alignment if isinstance(alignment, int) and alignment > 0 else _ALIGNMENT
    start = -(-reader.at // step) * step
    return Header(path, metadata, {name: TensorPlace(shape, form, start + at) for name, shape, form, at in found})
