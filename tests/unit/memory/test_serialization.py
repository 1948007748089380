"""A memory's bytes: exact, always the same, and refused where anything in them is not right."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load as load_tensors

from locas_agent.errors import CorruptPayload, IncompatibleMemory
from locas_agent.memory.serialization import MAX_HEADER_BYTES, from_bytes, to_bytes
from tests.conftest import MakeMemory


def with_header(data: bytes, change: str, to: str) -> bytes:
    """The payload with a text in its header replaced and the length adjusted."""
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length].decode()
    assert change in header
    text = header.replace(change, to).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def test_bytes_round_trip_exactly_and_are_always_the_same(make_memory: MakeMemory) -> None:
    memory = make_memory(3)
    data = to_bytes(memory)
    assert to_bytes(memory) == data
    read = from_bytes(data, expect_fingerprint=memory.fingerprint)
    assert torch.equal(read.slab, memory.clipped().slab)
    assert torch.equal(read.scale, memory.scale)
    assert torch.equal(read.neuron_indices, memory.neuron_indices)
    assert (read.fingerprint, read.initialization) == (memory.fingerprint, memory.initialization)
    assert to_bytes(read) == data


def test_any_safetensors_reader_finds_the_named_tensors(make_memory: MakeMemory) -> None:
    memory = make_memory(3)
    tensors = load_tensors(to_bytes(memory, dtype="bfloat16"))
    assert set(tensors) == {"gate_rows", "up_rows", "down_rows", "scale", "neuron_indices"}
    assert torch.equal(tensors["up_rows"], memory.clipped().up_rows.bfloat16())


def test_bfloat16_halves_the_rows(make_memory: MakeMemory) -> None:
    memory = make_memory(3, width=16)
    full, half = to_bytes(memory), to_bytes(memory, dtype="bfloat16")
    assert abs((len(full) - len(half)) - memory.parameter_count * 2) < 16  # the headers differ by a few bytes
    torch.testing.assert_close(from_bytes(half).slab, memory.clipped().slab, atol=0, rtol=2**-8)


def test_every_flipped_byte_is_noticed(make_memory: MakeMemory) -> None:
    data = to_bytes(make_memory(3, width=1))
    for at in range(0, len(data), 7):
        broken = bytearray(data)
        broken[at] ^= 0x01
        with pytest.raises((CorruptPayload, IncompatibleMemory)):
            from_bytes(bytes(broken))


@pytest.mark.parametrize("cut", [0, 5, 8, 100, -1])
def test_cut_or_extended_bytes_are_refused(make_memory: MakeMemory, cut: int) -> None:
    data = to_bytes(make_memory(3))
    with pytest.raises(CorruptPayload):
        from_bytes(data[:cut])
    with pytest.raises(CorruptPayload):
        from_bytes(data + b"\0")


def test_large_header_is_refused_before_it_is_read() -> None:
    text = json.dumps({"a": "x" * MAX_HEADER_BYTES}).encode()
    with pytest.raises(CorruptPayload, match="header"):
        from_bytes(len(text).to_bytes(8, "little") + text)


def test_other_format_version_and_other_backbone_are_named(make_memory: MakeMemory) -> None:
    data = to_bytes(make_memory(3))
    with pytest.raises(IncompatibleMemory, match="version '9'"):
        from_bytes(with_header(data, '"format_version":"1"', '"format_version":"9"'))
    with pytest.raises(IncompatibleMemory, match="belongs to"):
        from_bytes(data, expect_fingerprint="0" * 64)


@pytest.mark.parametrize(
    ("change", "to"),
    [
        ('"width":"4"', '"width":"4","surprise":"1"'),
        ('"width":"4"', '"width":"4","width":"4"'),
        ('"width":"4"', '"width":"400000000"'),
        ('"width":"4"', '"width":"-4"'),
        ('"scale"', '"scales"'),
        ('"dtype":"F32","shape":[2]', '"dtype":"F64","shape":[2]'),
        ('"shape":[2]', '"shape":[3]'),
        ('"data_offsets":[0,', '"data_offsets":[8,'),
        ('"initialization":"random_index"', '"initialization":"unheard_of"'),
    ],
)
def test_header_that_says_anything_else_is_refused(make_memory: MakeMemory, change: str, to: str) -> None:
    with pytest.raises(CorruptPayload):
        from_bytes(with_header(to_bytes(make_memory(3)), change, to))


def test_values_that_are_not_finite_are_never_written(make_memory: MakeMemory) -> None:
    memory = make_memory(3)
    memory.slab[0, 0, 0, 0] = float("nan")
    with pytest.raises(IncompatibleMemory, match="finite"):
        to_bytes(memory)
