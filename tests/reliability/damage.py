"""Gives damaged bytes to the loader and to the store, and counts what they were taken for."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from sqlalchemy import insert, update

from locas_agent.errors import LocasError, StorageError
from locas_agent.memory import LocasMemory
from locas_agent.memory.serialization import from_bytes, to_bytes
from locas_storage import SqlMemoryStore
from locas_storage.conformance.samples import ADA
from locas_storage.sql.tables.schema import blob, revision

OURS, OTHER = "a" * 64, "b" * 64
"""Fingerprints of two backbones."""


def memory(seed: int, *, layers: int = 1, width: int = 1, fingerprint: str = OURS) -> LocasMemory:
    """Return a memory whose bytes are few."""
    generator = torch.Generator().manual_seed(seed)
    slab = 0.2 * torch.randn(layers, 3, width, 4, generator=generator)
    return LocasMemory(slab, torch.ones(layers), torch.zeros(layers, width, dtype=torch.int64), fingerprint, "random")


def loaded_wrong(originals: Sequence[bytes], damaged: Iterable[tuple[str, bytes]]) -> tuple[Counter[str], list[str]]:
    """Load mutants; return what became of them, and the kinds of those that were taken for a memory nobody wrote."""
    contents = {to_bytes(from_bytes(data)) for data in originals}
    counts: Counter[str] = Counter()
    wrong = []
    for kind, data in damaged:
        try:
            # A header in other spacing says the same: what counts is the memory that comes out.
            content = to_bytes(from_bytes(data, expect_fingerprint=OURS))
        except LocasError as error:
            counts[type(error).__name__] += 1
        else:
            counts["the same memory"] += 1
            if content not in contents:
                wrong.append(kind)
    return counts, wrong


def kept_wrong(
    store: SqlMemoryStore, damaged: Iterable[tuple[str, bytes]], *, fit_digest: bool
) -> tuple[Counter[str], list[str]]:
    """Put mutants where the store keeps a payload.

    Return what reading said, and the kinds of those that were handed out.

    Args:
        store: keeps revision 1 of ADA.
        damaged: what is put there.
        fit_digest: rename the row after the mutant's digest, as a writer of the database can.
    """
    counts: Counter[str] = Counter()
    wrong = []
    for kind, data in damaged:
        plant(store, data, fit_digest=fit_digest)
        try:
            store.payload(ADA, 1)
        except StorageError as error:
            counts[type(error).__name__] += 1
        else:
            wrong.append(kind)
    return counts, wrong


def plant(store: SqlMemoryStore, data: bytes, *, fit_digest: bool) -> None:
    with store.database.write() as connection:
        if not fit_digest:
            connection.execute(update(blob).values(data=data))
            return
        row = connection.execute(blob.select().order_by(blob.c.created_at)).first()
        assert row is not None
        named = {"sha256": hashlib.sha256(data).hexdigest(), "data": data, "size": len(data)}
        connection.execute(insert(blob).values(row._asdict() | named))
        connection.execute(update(revision).values(blob_sha256=named["sha256"], payload_bytes=len(data)))
        connection.execute(blob.delete().where(blob.c.sha256 == row.sha256))
