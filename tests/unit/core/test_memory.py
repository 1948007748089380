"""A memory's own facts: the clip, its bytes, what is refused."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load as load_tensors

from locas_agent.errors import CorruptPayload, IncompatibleMemory
from locas_agent.memory import LocasMemory, MemoryBatch
from locas_agent.memory.serialization import MAX_HEADER_BYTES, from_bytes, to_bytes
from tests.conftest import MakeBackbone, MakeMemory


def with_header(data: bytes, change: str, to: str) -> bytes:
    """The payload with a text in its header replaced and the length adjusted."""
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length].decode()
    assert change in header
    text = header.replace(change, to).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def test_clip_shrinks_long_rows_only_and_is_idempotent_to_the_bit(make_memory: MakeMemory) -> None:
    memory = make_memory(1, width=16, down=0.2)  # norms of down rows about 0.2 * sqrt(32) = 1.13, on both sides of 1
    once = memory.clipped()
    norms, clipped = memory.row_norms(), once.row_norms()
    assert bool((norms > 1.05).any())
    assert bool((norms < 0.95).any())
    torch.testing.assert_close(clipped, norms.clamp_max(1.0))
    short = norms <= 1.0
    assert torch.equal(once.slab[short], memory.slab[short])
    assert torch.equal(once.clipped().slab, once.slab)


def test_clipped_share_counts_rows_at_the_limit(make_memory: MakeMemory) -> None:
    assert make_memory(1, down=0.0).clipped_share() == pytest.approx(2 / 3)  # gate and up rows start at norm 1
    assert make_memory(1, down=100.0).clipped_share() == 1.0


def test_views_and_sizes(make_memory: MakeMemory) -> None:
    memory = make_memory(1, width=5)
    assert (memory.n_layers, memory.width, memory.hidden_size) == (2, 5, 32)
    assert memory.parameter_count == 3 * 2 * 5 * 32
    assert torch.equal(torch.stack([memory.gate_rows, memory.up_rows, memory.down_rows], dim=1), memory.slab)


def test_memory_of_the_wrong_dtype_is_refused(make_memory: MakeMemory) -> None:
    memory = make_memory(1)
    with pytest.raises(IncompatibleMemory, match="fp32"):
        dataclasses.replace(memory, slab=memory.slab.half())
    with pytest.raises(IncompatibleMemory, match="neuron_indices"):
        dataclasses.replace(memory, neuron_indices=memory.neuron_indices[:, :2])


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


def test_memory_of_another_size_is_refused(make_memory: MakeMemory, make_backbone: MakeBackbone) -> None:
    backbone, memory = make_backbone(), make_memory(1)
    wide = LocasMemory(
        slab=torch.zeros(2, 3, 4, 64),
        scale=memory.scale,
        neuron_indices=memory.neuron_indices,
        fingerprint=memory.fingerprint,
        initialization="random",
    )
    with pytest.raises(IncompatibleMemory, match="hidden size 64"):
        MemoryBatch.of([wide], backbone)
