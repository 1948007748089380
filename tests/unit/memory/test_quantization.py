"""Rows as int8: what rounding costs, that it happens once, and which scales are refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load as load_tensors
from torch import Tensor

from locas_agent.errors import ConfigurationError, CorruptPayload, IncompatibleMemory
from locas_agent.memory import LocasMemory
from locas_agent.memory.quantization import MOST, Int8Rows
from locas_agent.memory.serialization import as_stored, from_bytes, to_bytes
from locas_agent.memory.slab import clip_rows
from tests.conftest import MakeMemory


def drawn(norm: float, *, hidden: int = 64, seed: int = 0) -> Tensor:
    """Rows of one length, of all shapes from flat to one large number."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(2, 3, 8, hidden, generator=generator) ** torch.tensor([1, 3, 9, 1, 3, 9, 1, 3])[:, None]
    return clip_rows(rows / torch.linalg.vector_norm(rows, dim=-1, keepdim=True) * norm)


@pytest.mark.parametrize("norm", [1e-20, 1e-3, 0.5, 0.99])
def test_a_number_is_off_by_at_most_half_a_scale(norm: float) -> None:
    rows = drawn(norm)
    largest = rows.abs().amax(dim=-1, keepdim=True)
    error = (Int8Rows.of(rows).dense() - rows).abs()
    assert bool((error <= largest * ((1 + 2**-16) / (2 * MOST))).all())
    assert bool((error > 0).any())


@pytest.mark.parametrize("hidden", [4, 64, 1024])
def test_a_row_at_the_clip_is_not_lengthened(hidden: int) -> None:
    rows = drawn(1.0, hidden=hidden)
    dense = Int8Rows.of(rows).dense()
    assert torch.equal(clip_rows(dense), dense)
    # Shortening costs no more than what rounding had lengthened the row by.
    largest = rows.abs().amax(dim=-1, keepdim=True)
    lengthened = largest / MOST / 2 * hidden**0.5
    assert bool(((dense - rows).abs() <= largest / (2 * MOST) + rows.abs() * (lengthened + 2**-15)).all())


@pytest.mark.parametrize("seed", range(20))
def test_what_was_read_is_written_again_to_the_bit(seed: int) -> None:
    for norm in (1e-12, 0.03, 1.0):
        packed = Int8Rows.of(drawn(norm, seed=seed))
        again = Int8Rows.of(clip_rows(packed.dense()))
        assert torch.equal(again.values, packed.values)
        assert torch.equal(again.scales, packed.scales)
        assert torch.equal(again.dense(), packed.dense())


def test_rows_of_nothing_stay_nothing() -> None:
    rows = torch.zeros(1, 3, 2, 4)
    rows[0, 0, 1] = 1e-42  # below the normal numbers of fp32
    packed = Int8Rows.of(rows)
    assert not packed.values.any()
    assert not packed.scales.any()
    assert not packed.dense().any()


def of(memory: LocasMemory, change: Callable[[dict[str, Tensor]], None]) -> bytes:
    """Return an int8 payload with changed tensors and a checksum that fits them."""
    data = to_bytes(memory, dtype="int8")
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    tensors = {name: tensor.clone() for name, tensor in load_tensors(data).items()}
    change(tensors)
    metadata = header["__metadata__"]
    del metadata["checksum"]
    names = sorted((name for name in header if name != "__metadata__"), key=lambda name: header[name]["data_offsets"])
    body = b"".join(tensors[name].contiguous().view(torch.uint8).numpy().tobytes() for name in names)
    metadata["checksum"] = hashlib.sha256(
        json.dumps(metadata, sort_keys=True, separators=(",", ":")).encode() + b"\0" + body
    ).hexdigest()
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + body


def test_payload_comes_back_as_rounded_and_is_then_the_same(make_memory: MakeMemory) -> None:
    memory = make_memory(3)
    data = to_bytes(memory, dtype="int8")
    read = from_bytes(data, expect_fingerprint=memory.fingerprint)
    assert torch.equal(read.slab, Int8Rows.of(memory.clipped().slab).dense())
    assert not torch.equal(read.slab, memory.clipped().slab)
    assert torch.equal(read.scale, memory.scale)
    assert torch.equal(read.neuron_indices, memory.neuron_indices)
    assert to_bytes(read, dtype="int8") == data == of(memory, lambda _: None)
    assert torch.equal(as_stored(memory, dtype="int8").slab, read.slab)


def test_int8_takes_a_quarter_of_the_rows_and_one_scale_each(make_memory: MakeMemory) -> None:
    memory = make_memory(3, width=16)
    full, small = to_bytes(memory), to_bytes(memory, dtype="int8")
    saved = memory.parameter_count * 3 - memory.parameter_count // memory.hidden_size * 4
    assert abs(len(full) - len(small) - saved) < 400  # the header names three tensors more


def test_any_safetensors_reader_finds_values_and_scales(make_memory: MakeMemory) -> None:
    tensors = load_tensors(to_bytes(make_memory(3), dtype="int8"))
    assert set(tensors) == {
        "neuron_indices",
        "scale",
        *(f"{kind}_{part}" for kind in ("gate", "up", "down") for part in ("rows", "scales")),
    }
    assert tensors["up_rows"].dtype == torch.int8


def put(name: str, value: float) -> Callable[[dict[str, Tensor]], None]:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors[name].view(-1)[1] = value

    return change


def swap(tensors: dict[str, Tensor]) -> None:
    tensors["gate_scales"][0, [0, 1]] = tensors["gate_scales"][0, [1, 0]] * torch.tensor([1.0, 3.0])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.01, 0.0, -0.0, 1e-38, 1.0, 0.0123456789])
def test_scale_that_is_no_rows_is_refused(make_memory: MakeMemory, value: float) -> None:
    with pytest.raises(CorruptPayload, match="scale"):
        from_bytes(of(make_memory(3), put("up_scales", value)))


@pytest.mark.parametrize(
    "change",
    [
        put("down_rows", -128),
        lambda tensors: tensors["gate_rows"].zero_(),
        lambda tensors: tensors["up_rows"].clamp_(-90, 90),
        swap,
    ],
)
def test_values_that_do_not_fit_their_scales_are_refused(
    make_memory: MakeMemory, change: Callable[[dict[str, Tensor]], None]
) -> None:
    with pytest.raises(CorruptPayload, match="scale"):
        from_bytes(of(make_memory(3), change))


def test_every_flipped_byte_is_noticed(make_memory: MakeMemory) -> None:
    data = to_bytes(make_memory(3, width=1), dtype="int8")
    for at in range(0, len(data), 7):
        broken = bytearray(data)
        broken[at] ^= 0x01
        with pytest.raises((CorruptPayload, IncompatibleMemory)):
            from_bytes(bytes(broken))


def test_version_says_which_rows_a_payload_holds(make_memory: MakeMemory) -> None:
    small, full = to_bytes(make_memory(3), dtype="int8"), to_bytes(make_memory(3), dtype="bfloat16")
    assert b'"format_version":"2"' in small
    assert b'"format_version":"1"' in full
    for data, was, now in ((small, b'"2"', b'"1"'), (full, b'"1"', b'"2"')):
        with pytest.raises(CorruptPayload, match="dtypes of the format"):
            from_bytes(data.replace(b'"format_version":' + was, b'"format_version":' + now))


def test_unknown_form_is_refused(make_memory: MakeMemory) -> None:
    with pytest.raises(ConfigurationError, match="float32, bfloat16, int8"):
        to_bytes(make_memory(3), dtype="int4")  # type: ignore[arg-type]
