"""Damaged bytes of a memory are refused by a declared error, by loader and store, and never taken for a memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from locas_agent.memory.serialization import to_bytes
from locas_storage import FileKeyProvider, SqlMemoryStore, new_key_file
from locas_storage.conformance.samples import ADA, draft, say
from locas_storage.sql.tables.schema import blob
from tests.reliability.conftest import Record, Sizes
from tests.reliability.damage import OTHER, kept_wrong, loaded_wrong, memory, plant
from tests.reliability.mutants_of_bytes import KINDS, mutants


@pytest.fixture(scope="module")
def originals() -> list[bytes]:
    """Memories of two sizes, three dtypes and two backbones, so that pieces of one are plausible in another."""
    made = [memory(0), memory(1), memory(2, layers=2, width=2), memory(3, fingerprint=OTHER)]
    return [*map(to_bytes, made), to_bytes(memory(4), dtype="bfloat16"), to_bytes(memory(5), dtype="int8")]


@pytest.fixture
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[SqlMemoryStore]:
    """A store with one revision, encrypted if asked for."""
    new_key_file(tmp_path / "keys")
    keys = FileKeyProvider(tmp_path / "keys") if request.param == "encrypted" else None
    with closing(SqlMemoryStore("sqlite://", key_provider=keys)) as made:
        say(made, 1)
        made.commit(ADA, draft(0, 1, 1, to_bytes(memory(0))))
        yield made


def kept_bytes(store: SqlMemoryStore) -> bytes:
    with store.database.read() as connection:
        return bytes(connection.scalars(blob.select().with_only_columns(blob.c.data)).one())


def test_loader_takes_no_mutant_for_a_memory(originals: list[bytes], sizes: Sizes, record: Record) -> None:
    counts, wrong = loaded_wrong(originals, mutants(originals, sizes.mutated_payloads))
    assert wrong == []
    assert set(counts) <= {"CorruptPayload", "IncompatibleMemory", "the same memory"}
    assert counts["CorruptPayload"] > sizes.mutated_payloads // 2
    record(
        "mutated payloads, loader", mutants=counts.total(), crashes=0, accepted_wrong=len(wrong), outcomes=dict(counts)
    )


@pytest.mark.parametrize("store", ["clear"], indirect=True)
def test_store_hands_out_no_mutant(store: SqlMemoryStore, originals: list[bytes], sizes: Sizes, record: Record) -> None:
    counts, wrong = kept_wrong(store, mutants(originals, sizes.mutated_rows), fit_digest=False)
    assert wrong == []
    assert set(counts) == {"CorruptPayload"}
    plant(store, originals[0], fit_digest=False)
    assert store.payload(ADA, 1) == originals[0]
    record("mutated payloads, store", mutants=counts.total(), crashes=0, accepted_wrong=len(wrong))


@pytest.mark.parametrize("store", ["encrypted"], indirect=True)
def test_encrypted_store_hands_out_no_mutant_though_its_digest_fits(
    store: SqlMemoryStore, sizes: Sizes, record: Record
) -> None:
    ciphertext = kept_bytes(store)
    damaged = mutants([ciphertext], sizes.mutated_rows // 5, kinds=["flipped", "cut", "grown", "shuffled", "noise"])
    counts, wrong = kept_wrong(store, damaged, fit_digest=True)
    assert wrong == []
    assert set(counts) == {"CorruptPayload"}
    plant(store, ciphertext, fit_digest=True)
    assert store.payload(ADA, 1) == to_bytes(memory(0))
    record(
        "mutated payloads, encrypted store with digests that fit",
        mutants=counts.total(),
        crashes=0,
        accepted_wrong=len(wrong),
    )


def test_every_kind_of_mutant_is_drawn(originals: list[bytes]) -> None:
    drawn = list(mutants(originals, 200))
    assert {kind for kind, _ in drawn} == set(KINDS)
    assert len({data for _, data in drawn}) > 190
    assert not {data for _, data in drawn} & set(originals)
