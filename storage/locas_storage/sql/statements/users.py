"""Owns the user's row: locking it, its counters, and who there is.

Every function works within the caller's transaction.
"""

import datetime as dt
import logging
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, select, update
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import IntegrityError

from locas_storage.errors import RevisionConflict
from locas_storage.records.time import moment
from locas_storage.records.turns import UserKey, UserState
from locas_storage.rules import commit
from locas_storage.sql.database.connections import by_driver
from locas_storage.sql.tables import rows
from locas_storage.sql.tables.columns import BigInt, DbNow
from locas_storage.sql.tables.schema import subject

logger = logging.getLogger(__name__)

# What is returned is computed from the locked row, the time too: a query that locks would read it before it waits for
# the lock.
TAKE = (
    update(subject)
    .where(rows.belongs_to_param(subject), subject.c.erased_at.is_(None))
    .values(next_seq=subject.c.next_seq + bindparam("count", type_=BigInt))
    .returning(subject.c.next_seq, subject.c.wrapped_dek, subject.c.kek_id, DbNow().label("now"))
)
"""Lock a standing user's row and take the next `count` numbers."""
_TAKE_BY_DRIVER = TAKE.compile(dialect=sqlite.dialect())


def state(connection: Connection, key: UserKey) -> UserState | None:
    """Return the user's counters, None for an unknown user."""
    row = connection.execute(
        select(subject).where(rows.belongs_to(subject, key), subject.c.erased_at.is_(None))
    ).one_or_none()
    return None if row is None else rows.state(row)


def standing(connection: Connection, key: UserKey) -> UserState:
    """Return the counters of a user who can be changed, without locking the row.

    Raises:
        UnknownUser: there is no such user.
        UserErased: there was one.
    """
    row = connection.execute(select(subject).where(rows.belongs_to(subject, key))).one_or_none()
    return commit.require_user(None if row is None else _standing(row, key), key)


def locked(connection: Connection, key: UserKey) -> UserState:
    """Lock the user's row until the transaction ends, and return the counters.

    Raises:
        UnknownUser: there is no such user.
        UserErased: there was one.
    """
    row = _lock(connection, key)
    return commit.require_user(None if row is None else _standing(row, key), key)


def locked_if_there(connection: Connection, key: UserKey, *, skip_locked: bool) -> UserState | None:
    """Lock the user's row.

    None where there is no such user any more, or with `skip_locked` where another transaction holds it.
    """
    row = _lock(connection, key, skip_locked=skip_locked)
    return None if row is None or row.erased_at is not None else rows.state(row)


def locked_tombstone(connection: Connection, key: UserKey) -> tuple[UserState, bool]:
    """Lock the user's row even if the user was erased; return the counters, and whether it is a tombstone.

    Raises:
        UnknownUser: there never was such a user.
    """
    row = _lock(connection, key)
    return commit.require_user(
        None if row is None else rows.state(row), key
    ), row is not None and row.erased_at is not None


@dataclass(frozen=True, slots=True)
class Reserved:
    """Numbers taken for turns of a user whose row is locked by that.

    Attributes:
        key: the user.
        first: the first of the numbers.
        now: the database's time, read once the row was locked: turns of a user are stored in the order of their times.
        wrapped_dek: the user's wrapped data key, None if there is none.
        kek_id: what it is wrapped under.
    """

    key: UserKey
    first: int
    now: dt.datetime
    wrapped_dek: bytes | None = field(repr=False)
    kek_id: str | None


def reserve(connection: Connection, key: UserKey, count: int) -> Reserved:
    """Lock the user's row, making it if there is none, and take the next `count` numbers of turns, in one statement.

    Raises:
        UserErased: the user was erased.
    """
    found = _take(connection, key, count)
    if found is None:
        if connection.scalar(select(subject.c.erased_at).where(rows.belongs_to(subject, key))) is None:
            _make(connection, key)
        found = _take(connection, key, count)
    if found is None:
        raise commit.erased(key)
    return found


def give_back(connection: Connection, key: UserKey, count: int) -> None:
    """Give back the last numbers that were taken in this transaction, so that the next turns get them."""
    if count:
        connection.execute(
            update(subject).where(rows.belongs_to(subject, key)).values(next_seq=subject.c.next_seq - count)
        )


def users(connection: Connection, tenant: str | None) -> list[UserKey]:
    """Return every user, or those of one tenant, ordered by tenant and name."""
    query = select(subject.c.tenant_id, subject.c.subject_id).where(subject.c.erased_at.is_(None))
    if tenant is not None:
        query = query.where(subject.c.tenant_id == tenant)
    # Sorted here: databases differ in how they order text.
    return [UserKey(*names) for names in sorted((row.tenant_id, row.subject_id) for row in connection.execute(query))]


def next_revision(connection: Connection, key: UserKey) -> int:
    """Return the number that the user's next revision gets."""
    return int(connection.scalars(select(subject.c.next_rev).where(rows.belongs_to(subject, key))).one())


def advance(connection: Connection, before: UserState, **counters: Any) -> None:
    """Change a user's counters if they are still those of `before`.

    Raises:
        RevisionConflict: they are not.
    """
    same = (subject.c.head_rev == before.head, subject.c.fence == before.fence, subject.c.next_seq == before.next_seq)
    moved = connection.execute(update(subject).where(rows.belongs_to(subject, before.key), *same).values(counters))
    if moved.rowcount != 1:
        raise RevisionConflict("the user's counters changed during the call; someone saved first, call again")


def move_head(connection: Connection, before: UserState, number: int, consolidated_seq: int) -> None:
    """Make a new revision the current one.

    Raises:
        RevisionConflict: the counters are no longer those of `before`.
    """
    advance(
        connection,
        before,
        head_rev=number,
        next_rev=number + 1,
        consolidated_seq=consolidated_seq,
        fence=before.fence + 1,
    )


def _lock(connection: Connection, key: UserKey, *, skip_locked: bool = False) -> Row[Any] | None:
    # SQLite leaves FOR UPDATE out; its write transaction holds the only write lock already.
    return connection.execute(
        select(subject).where(rows.belongs_to(subject, key)).with_for_update(skip_locked=skip_locked)
    ).one_or_none()


def _take(connection: Connection, key: UserKey, count: int) -> Reserved | None:
    values = rows.key_params(key) | {"count": count}
    if connection.dialect.name == "sqlite":
        given = _TAKE_BY_DRIVER.construct_params(values)
        row = by_driver(
            connection, _TAKE_BY_DRIVER.string, [given[name] for name in _TAKE_BY_DRIVER.positiontup or ()]
        ).fetchone()
        if row is None:
            return None
        next_seq, wrapped_dek, kek_id, now = row
        return Reserved(key, next_seq - count, moment(now), wrapped_dek, kek_id)
    found = connection.execute(TAKE, values).one_or_none()
    return None if found is None else Reserved(key, found.next_seq - count, found.now, found.wrapped_dek, found.kek_id)


def _make(connection: Connection, key: UserKey) -> None:
    try:
        with connection.begin_nested():
            connection.execute(insert(subject).values(rows.key_columns(key) | {"created_at": DbNow()}))
    except IntegrityError:
        logger.debug("user created by another transaction meanwhile", extra={"user": key.short_hash})


def _standing(row: Row[Any], key: UserKey) -> UserState:
    if row.erased_at is not None:
        raise commit.erased(key)
    return rows.state(row)
