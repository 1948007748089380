"""Owns the statements over turns.

Every function works within the caller's transaction.
"""

import datetime as dt
from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, Executable, bindparam, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from locas_storage.encryption.envelope import Cipher
from locas_storage.records.bounds import new_item_id
from locas_storage.records.turns import Turn, TurnDraft, UserKey
from locas_storage.rules import commit
from locas_storage.sql.tables import rows
from locas_storage.sql.tables.parameters import chunks, clamped, one_or_many
from locas_storage.sql.tables.schema import turn

_ADD = insert(turn)
IDENTITY = [turn.c.tenant_id, turn.c.subject_id, turn.c.idem_key]
"""What makes a turn said again the same turn."""
_ADD_NEW: dict[str, Executable] = {
    name: dialect.insert(turn).on_conflict_do_nothing(index_elements=IDENTITY).execution_options(preserve_rowcount=True)
    for name, dialect in (("sqlite", sqlite), ("postgresql", postgresql))
}
"""By the name of the dialect: a conflict is no part of the SQL that databases share."""
_KNOWN = select(turn).where(rows.belongs_to_param(turn), turn.c.idem_key.in_(bindparam("idem_keys", expanding=True)))


def append(
    connection: Connection,
    key: UserKey,
    drafts: Sequence[TurnDraft],
    cipher: Cipher,
    *,
    next_seq: int,
    now: dt.datetime,
) -> tuple[list[Turn], int]:
    """Add turns to the journal of a locked user; return one turn for each draft, and how many are new."""
    if len(drafts) == 1 and drafts[0].idempotency_key is not None:
        return _append_keyed(connection, key, drafts[0], cipher, next_seq=next_seq, now=now)
    by_key = {
        one.idempotency_key: one
        for one in known(
            connection, key, [draft.idempotency_key for draft in drafts if draft.idempotency_key is not None], cipher
        )
    }
    added: list[Turn] = []
    answered: list[Turn] = []
    for draft in drafts:
        idem_key = draft.idempotency_key or new_item_id()
        if idem_key not in by_key:
            by_key[idem_key] = commit.new_turn(
                draft, seq=next_seq + len(added), idempotency_key=idem_key, created_at=now
            )
            added.append(by_key[idem_key])
        answered.append(by_key[idem_key])
    values = [rows.turn_values(key, one, cipher) for one in added]
    if values:
        connection.execute(_ADD, one_or_many(values))
    return answered, len(added)


def _append_keyed(
    connection: Connection, key: UserKey, draft: TurnDraft, cipher: Cipher, *, next_seq: int, now: dt.datetime
) -> tuple[list[Turn], int]:
    """Add one turn unless its key is there.

    That is rare, so the turn is inserted first and looked for only if it was not taken.
    """
    made = commit.new_turn(draft, seq=next_seq, idempotency_key=str(draft.idempotency_key), created_at=now)
    if connection.execute(_ADD_NEW[connection.dialect.name], rows.turn_values(key, made, cipher)).rowcount == 1:
        return [made], 1
    return known(connection, key, [made.idempotency_key], cipher), 0


def turns(
    connection: Connection,
    key: UserKey,
    cipher: Cipher,
    *,
    after: int = 0,
    upto: int | None = None,
    newest: int | None = None,
) -> list[Turn]:
    """Return turns in ascending order; see `MemoryStore.turns`."""
    query = select(turn).where(rows.belongs_to(turn, key), rows.shown(), turn.c.seq > clamped(after))
    if upto is not None:
        query = query.where(turn.c.seq <= clamped(upto))
    if newest is not None:
        query = query.order_by(turn.c.seq.desc()).limit(clamped(newest))
    else:
        query = query.order_by(turn.c.seq)
    return sorted((rows.turn(row, cipher) for row in connection.execute(query)), key=lambda one: one.seq)


def span_digest(connection: Connection, key: UserKey, from_seq: int, to_seq: int, cipher: Cipher) -> str:
    """Return the digest over the contents of a span of turns."""
    query = (
        select(turn.c.content_sha256)
        .where(rows.belongs_to(turn, key), turn.c.seq.between(from_seq, to_seq))
        .order_by(turn.c.seq)
    )
    return cipher.span_digest(connection.scalars(query))


def known(connection: Connection, key: UserKey, idem_keys: Iterable[str], cipher: Cipher) -> list[Turn]:
    """Return the turns that were said under these keys."""
    return [
        rows.turn(row, cipher)
        for chunk in chunks(idem_keys)
        for row in connection.execute(_KNOWN, rows.key_params(key) | {"idem_keys": chunk})
    ]
