"""Draws damaged forms of a memory's bytes, as a failing disk, a broken program or a hostile writer would leave them.

Seeded: the same seed draws the same mutants.
"""

from __future__ import annotations

import hashlib
import json
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import count

Draw = Callable[[random.Random, Sequence[bytes]], bytes]

_FLOAT_BYTES = {"F32": 4, "BF16": 2}
_NOT_FINITE = [struct.pack("<f", value) for value in (float("nan"), float("inf"), float("-inf"))]


def split(data: bytes) -> tuple[str, bytes]:
    """Return the header's text and the bytes of the tensors."""
    end = 8 + int.from_bytes(data[:8], "little")
    return data[8:end].decode(), data[end:]


def joined(header: str, body: bytes) -> bytes:
    text = header.encode()
    return len(text).to_bytes(8, "little") + text + body


def sealed(header: dict[str, dict[str, object]], body: bytes) -> bytes:
    """Return a memory whose checksum fits again: what only a writer who knows the format does."""
    metadata = {name: value for name, value in header["__metadata__"].items() if name != "checksum"}
    text = json.dumps(metadata, sort_keys=True, separators=(",", ":"))
    header["__metadata__"]["checksum"] = hashlib.sha256(text.encode() + b"\0" + body).hexdigest()
    return joined(json.dumps(header, separators=(",", ":")), body)


def _flipped(rng: random.Random, originals: Sequence[bytes]) -> bytes:
    data = bytearray(rng.choice(originals))
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _stained(rng: random.Random, originals: Sequence[bytes]) -> bytes:
    """Bits of the tensors alone: nothing but a digest can tell."""
    header, body = split(rng.choice(originals))
    return joined(header, _flipped(rng, [body]))


def _cut(rng: random.Random, originals: Sequence[bytes]) -> bytes:
    data = rng.choice(originals)
    return data[: rng.randrange(len(data))]


def _grown(rng: random.Random, originals: Sequence[bytes]) -> bytes:
    data = rng.choice(originals)
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.randint(1, 64)) + data[at:]


def _spliced(rng: random.Random, originals: Sequence[bytes]) -> bytes:
    one, other = rng.sample(list(originals), 2)
    if rng.random() < 0.5:
        return joined(split(one)[0], split(other)[1])
    return one[: rng.randrange(len(one))] + other[rng.randrange(len(other)) :]


def _shuffled(rng: random.Random, originals: Sequence[bytes]) -> bytes:
    """Two pieces of equal length trade places: no byte is lost."""
    data = bytearray(rng.choice(originals))
    size = rng.randint(1, 16)
    one, other = rng.randrange(len(data) - size), rng.randrange(len(data) - size)
    data[one : one + size], data[other : other + size] = data[other : other + size], data[one : one + size]
    return bytes(data)


def _reworded(rng: random.Random, originals: Sequence[bytes]) -> bytes:
    """One entry of the header says something else; the checksum is left."""
    text, body = split(rng.choice(originals))
    header = json.loads(text)
    entry = header[rng.choice(list(header))]
    field = rng.choice(list(entry))
    values: list[object] = [
        0,
        -1,
        1 << 62,
        "",
        "F64",
        "BF16",
        "F32",
        "I64",
        "2",
        "9" * 9,
        None,
        [],
        [1],
        [1, 1],
        [1 << 31] * 3,
        [0, 8],
        {},
        True,
        1.5,
        "f" * 64,
        [[]],
        "\ud800",
        float("nan"),
    ]
    change = rng.randrange(4)
    if change == 0:
        entry[field] = rng.choice(values)
    elif change == 1:
        del entry[field]
    elif change == 2:
        entry[rng.choice(["surprise", "__metadata__", ""])] = rng.choice(values)
    else:
        header[rng.choice(list(header))] = rng.choice(values)
    return joined(json.dumps(header), body)


def _repeated(rng: random.Random, originals: Sequence[bytes]) -> bytes:
    """A name stands twice: readers differ in which of the two they take."""
    text, body = split(rng.choice(originals))
    name = rng.choice(['"scale"', '"width"', '"checksum"', '"shape"', '"__metadata__"'])
    return joined(text.replace(name, f"{name}:{rng.choice(['1', '[]', '{}'])},{name}", 1), body)


def _resealed(rng: random.Random, originals: Sequence[bytes]) -> bytes:
    """A value that no memory has, under a checksum that fits: only looking at the values finds it."""
    text, body = split(rng.choice(originals))
    header, changed = json.loads(text), bytearray(body)
    what = rng.randrange(3)
    if what == 0:  # a number that is not finite, somewhere among the floats
        tensor = header[rng.choice([name for name, entry in header.items() if entry.get("dtype") in _FLOAT_BYTES])]
        (start, end), wide = tensor["data_offsets"], _FLOAT_BYTES[tensor["dtype"]]
        at = start + wide * rng.randrange((end - start) // wide)
        changed[at : at + wide] = rng.choice(_NOT_FINITE)[-wide:]
    elif what == 1:  # a neuron of which there is none
        start, end = header["neuron_indices"]["data_offsets"]
        at = start + 8 * rng.randrange((end - start) // 8)
        changed[at : at + 8] = struct.pack("<q", -rng.randint(2, 1 << 40))
    else:  # other sizes, or another backbone
        name = rng.choice(["n_layers", "width", "hidden_size", "fingerprint", "format_version", "initialization"])
        header["__metadata__"][name] = rng.choice(["0", "7", "07", "-1", "1e3", "9" * 9, "0" * 64, "unheard of"])
    return sealed(header, bytes(changed))


def _noise(rng: random.Random, _: Sequence[bytes]) -> bytes:
    text = rng.choice(
        [
            "[" * rng.randint(1, 60_000),
            "{}",
            "[]",
            "null",
            '"' + "x" * 100,
            "{" * 2000,
            "1" * 5000,
            '{"__metadata__":{}}',
            "\x00" * 40,
        ]
    )
    return rng.randbytes(rng.randrange(200)) if rng.random() < 0.5 else joined(text, rng.randbytes(rng.randrange(64)))


KINDS: dict[str, Draw] = {
    "flipped": _flipped,
    "stained": _stained,
    "cut": _cut,
    "grown": _grown,
    "spliced": _spliced,
    "shuffled": _shuffled,
    "reworded": _reworded,
    "repeated": _repeated,
    "resealed": _resealed,
    "noise": _noise,
}


def mutants(
    originals: Sequence[bytes], number: int, *, kinds: Sequence[str] = tuple(KINDS), seed: int = 0
) -> Iterator[tuple[str, bytes]]:
    """Yield kind and bytes of as many mutants as asked for, the kinds in turn, none of them an original."""
    rng, drawn = random.Random(seed), 0
    for turn in count():
        if drawn == number:
            return
        kind = kinds[turn % len(kinds)]
        data = KINDS[kind](rng, originals)
        if data not in originals:
            drawn += 1
            yield kind, data
