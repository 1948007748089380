"""Owns the statements that turn a user's content in the clear into encrypted content, row by row.

Every function works within the caller's transaction, on a locked user whose rows were found sound: a digest that did
not fit would fit afterwards.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Column, Connection, Row, Select, bindparam, select, update

from locas_storage.encryption import envelope
from locas_storage.encryption.envelope import Cipher
from locas_storage.records.turns import UserKey
from locas_storage.rules import lineage
from locas_storage.sql.statements import payloads, revisions, search_index, turns
from locas_storage.sql.statements.payloads import RetentionPolicy
from locas_storage.sql.tables import rows
from locas_storage.sql.tables.parameters import VALUES_PER_STATEMENT
from locas_storage.sql.tables.schema import revision, study_item, turn

_NO_BYTES = ("payload that is no longer kept",)
"""Place of the digest of bytes that are gone: of them only the clear digest is left, so that is what is digested."""


def encrypt(
    connection: Connection, key: UserKey, clear: Cipher, cipher: Cipher, retention: RetentionPolicy
) -> list[str]:
    """Encrypt turns, study items and payloads of a user, and key every digest over them.

    Return the payloads whose files can go.
    """
    _turns(connection, key, cipher)
    _items(connection, key, cipher)
    search_index.take_out(connection, key)
    _revisions(connection, key, clear, cipher, retention)
    return payloads.drop_unused(connection, key)


def _turns(connection: Connection, key: UserKey, cipher: Cipher) -> None:
    query = select(turn.c.seq, turn.c.content).where(rows.belongs_to(turn, key), turn.c.forgotten_at.is_(None))
    change = (
        update(turn)
        .where(rows.belongs_to(turn, key), turn.c.seq == bindparam("at"))
        .values(content=bindparam("kept"), content_sha256=bindparam("sum"))
    )
    for part in _in_parts(connection, query, turn.c.seq):
        values = []
        for row in part:
            place, content = envelope.turn_place(row.seq), bytes(row.content)
            values.append({"at": row.seq, "kept": cipher.encrypt(place, content), "sum": cipher.digest(place, content)})
        connection.execute(change, values)


def _items(connection: Connection, key: UserKey, cipher: Cipher) -> None:
    fields = ("question", "answer", "teacher")
    query = select(study_item.c.item_id, *(study_item.c[field] for field in fields)).where(
        rows.belongs_to(study_item, key)
    )
    change = update(study_item).where(rows.belongs_to(study_item, key), study_item.c.item_id == bindparam("at"))
    change = change.values({field: bindparam(f"kept_{field}") for field in fields})
    for part in _in_parts(connection, query, study_item.c.item_id):
        values = []
        for row in part:
            kept = {
                f"kept_{field}": cipher.encrypt(envelope.item_place(row.item_id, field), bytes(getattr(row, field)))
                for field in fields
            }
            values.append({"at": row.item_id} | kept)
        connection.execute(change, values)


def _revisions(connection: Connection, key: UserKey, clear: Cipher, cipher: Cipher, retention: RetentionPolicy) -> None:
    """Encrypt each payload as that of the revision that made it.

    Two revisions with equal payloads have two afterwards.
    """
    made: dict[int, dict[str, str]] = {}
    chain = connection.execute(
        select(revision)
        .where(rows.belongs_to(revision, key), revision.c.state != lineage.ERASED)
        .order_by(revision.c.rev)
    ).all()
    for row in chain:
        if row.restores == 0:  # no memory: nothing that a digest covers
            continue
        if row.restores in made:
            values = made[row.restores]
        else:
            span = turns.span_digest(connection, key, row.from_seq, row.to_seq, cipher)
            values = {"turns_sha256": span} | _payload(connection, key, row, clear, cipher, retention)
        made[row.rev] = values
        connection.execute(
            update(revision).where(rows.belongs_to(revision, key), revision.c.rev == row.rev).values(values)
        )


def _payload(
    connection: Connection, key: UserKey, row: Row[Any], clear: Cipher, cipher: Cipher, retention: RetentionPolicy
) -> dict[str, str]:
    if row.blob_sha256 is None:
        return {"payload_sha256": cipher.digest(_NO_BYTES, bytes.fromhex(row.payload_sha256)).hex()}
    data = payloads.read(connection, key, revisions.one(connection, key, row.rev), retention.files, clear)
    staged = payloads.stage(data, row.rev, row.base_fingerprint, key, cipher, retention)
    payloads.keep(connection, key, staged, retention.files)
    return {"blob_sha256": staged.sha256, "payload_sha256": staged.digest}


def _in_parts(connection: Connection, query: Select[Any], by: Column[Any]) -> Iterator[Sequence[Row[Any]]]:
    """Read rows by a column that is not changed meanwhile, so many at once as one statement carries."""
    query = query.order_by(by).limit(VALUES_PER_STATEMENT)
    found = connection.execute(query).all()
    while found:
        yield found
        found = connection.execute(query.where(by > getattr(found[-1], by.name))).all()
