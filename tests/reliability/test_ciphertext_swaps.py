"""Every pairwise swap of two ciphertexts of an encrypted store is refused, whatever kind they are and whoever's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from itertools import permutations
from pathlib import Path

import pytest
from sqlalchemy import insert, select, update

from locas_storage import CorruptPayload, FileKeyProvider, SqlMemoryStore, UserKey, new_key_file
from locas_storage.conformance.samples import ADA, BEN, draft, item, say
from locas_storage.sql.statements import payloads, revisions, study_items, turns
from locas_storage.sql.tables.schema import blob, revision, study_item, turn
from tests.reliability.conftest import Record, Sizes


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlMemoryStore]:
    new_key_file(tmp_path / "keys")
    with closing(
        SqlMemoryStore("sqlite://", key_provider=FileKeyProvider(tmp_path / "keys"), keep_payloads=10)
    ) as made:
        yield made


def test_every_swap_of_two_payloads_is_refused(store: SqlMemoryStore, sizes: Sizes, record: Record) -> None:
    """Payloads of ten users.

    A row that names another's bytes names their true digest too: only the envelope can tell.
    """
    each = sizes.swapped_payloads // 10
    keys = [UserKey("default", f"user {number}") for number in range(10)]
    for key in keys:
        say(store, each, key)
        for number in range(each):
            store.commit(key, draft(number, number + 1, number + 1, os.urandom(16)))
    places = [(key, number) for key in keys for number in range(1, each + 1)]
    refused = 0
    with store.database.write() as connection:
        kept = {}
        for key, number in places:
            row = connection.execute(
                select(revision).where(revision.c.subject_id == key.user, revision.c.rev == number)
            ).one()
            kept[key, number] = (row, connection.execute(select(blob).where(blob.c.sha256 == row.blob_sha256)).one())
        for key in keys:  # each user gets a row of each ciphertext there is
            foreign = [
                theirs._asdict() | {"subject_id": key.user}
                for _, theirs in kept.values()
                if theirs.subject_id != key.user
            ]
            connection.execute(insert(blob), foreign)
        ciphers = {key: store.data_keys.cipher(connection, key) for key in keys}
        for ((key, number), (own, _)), (_, (theirs, _)) in permutations(kept.items(), 2):
            where = (revision.c.subject_id == key.user, revision.c.rev == number)
            swapped = {"blob_sha256": theirs.blob_sha256, "payload_sha256": theirs.payload_sha256}
            connection.execute(update(revision).where(*where).values(swapped))
            with pytest.raises(CorruptPayload, match="another place, user or key"):
                payloads.read(connection, key, revisions.one(connection, key, number), None, ciphers[key])
            refused += 1
            connection.execute(
                update(revision).where(*where).values(blob_sha256=own.blob_sha256, payload_sha256=own.payload_sha256)
            )
        for key, number in places:
            assert len(payloads.read(connection, key, revisions.one(connection, key, number), None, ciphers[key])) == 16
    assert refused == len(places) * (len(places) - 1)
    record("ciphertext swaps, payloads", payloads=len(places), swaps=refused, refused=refused)


@pytest.mark.parametrize("what", ["turns", "study items"])
def test_every_swap_of_two_texts_is_refused(store: SqlMemoryStore, what: str, record: Record) -> None:
    """20 texts each of two users: 40 * 39 swaps of turns; of study items also question with answer and teacher."""
    for key in (ADA, BEN):
        say(store, 20, key)
        store.commit(
            key, draft(0, 1, 20, new_items=tuple(item(1, 1, f"q{number}", f"a{number}") for number in range(7)))
        )
    read = turns.turns if what == "turns" else partial(study_items.all_of, with_retired=True)
    table, columns = (turn, ["content"]) if what == "turns" else (study_item, ["question", "answer", "teacher"])
    refused = 0
    with store.database.write() as connection:
        found = connection.execute(select(table).order_by(table.c.subject_id)).all()
        cells = [(row, column) for row in found for column in columns]
        primary = list(table.primary_key.columns)
        for (row, column), (other, its_column) in permutations(cells, 2):
            where = [one == getattr(row, one.name) for one in primary]
            connection.execute(update(table).where(*where).values({column: getattr(other, its_column)}))
            key = UserKey(row.tenant_id, row.subject_id)
            cipher = store.data_keys.cipher(connection, key)
            with pytest.raises(CorruptPayload, match="another place"):
                read(connection, key, cipher)
            refused += 1
            connection.execute(update(table).where(*where).values({column: getattr(row, column)}))
    assert refused == (40 * 39 if what == "turns" else 42 * 41)
    record(f"ciphertext swaps, {what}", swaps=refused, refused=refused)
