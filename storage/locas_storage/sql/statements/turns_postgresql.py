"""Owns the one statement by which PostgreSQL appends a turn in the clear.

The number is taken and the turn inserted in one round trip.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, func, select, true
from sqlalchemy.dialects.postgresql import insert

from locas_storage.encryption.envelope import CLEAR
from locas_storage.records.bounds import new_item_id
from locas_storage.records.time import EPOCH
from locas_storage.records.turns import Turn, TurnDraft, UserKey
from locas_storage.rules import commit
from locas_storage.sql.statements import turns, users
from locas_storage.sql.tables import rows
from locas_storage.sql.tables.columns import UtcMicros
from locas_storage.sql.tables.schema import subject, turn

_TAKEN = users.TAKE.where(subject.c.wrapped_dek.is_(None)).cte("taken")
_OF_THE_ROW = {
    "seq": _TAKEN.c.next_seq - 1,
    "created_at": _TAKEN.c.now,
    "said_at": func.coalesce(bindparam("new_said_at", type_=UtcMicros()), _TAKEN.c.now),
}
_COLUMNS = [column for column in turn.columns if column.name != "forgotten_at"]
_MADE = (
    insert(turn)
    .from_select(
        [column.name for column in _COLUMNS],
        select(
            *(_OF_THE_ROW.get(column.name, bindparam(f"new_{column.name}", type_=column.type)) for column in _COLUMNS)
        ),
    )
    .on_conflict_do_nothing(index_elements=turns.IDENTITY)
    .returning(turn.c.seq)
    .cte("made")
)
_APPEND = select(_TAKEN.c.next_seq, _TAKEN.c.now, _MADE.c.seq).select_from(_TAKEN.outerjoin(_MADE, true()))


def append(connection: Connection, key: UserKey, drafts: Sequence[TurnDraft]) -> list[Turn] | None:
    """Append a turn, or find the one that was said under its key.

    Returns:
        None where this is not to be done at once, and nothing was: another database, several turns, a user who is new,
        erased or encrypted.
    """
    if connection.dialect.name != "postgresql" or len(drafts) != 1:
        return None
    (draft,) = drafts
    idem_key = draft.idempotency_key or new_item_id()
    said = commit.new_turn(draft, seq=0, idempotency_key=idem_key, created_at=EPOCH)
    values = rows.turn_values(key, said, CLEAR) | {"said_at": said.at if draft.at is not None else None}
    given = {f"new_{name}": value for name, value in values.items() if name not in ("seq", "created_at")}
    found = connection.execute(_APPEND, rows.key_params(key) | given | {"count": 1}).one_or_none()
    if found is None:
        return None
    if found.seq is None:
        users.give_back(connection, key, 1)
        return turns.known(connection, key, [idem_key], CLEAR)
    return [commit.new_turn(draft, seq=found.seq, idempotency_key=idem_key, created_at=found.now)]
