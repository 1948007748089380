"""Owns the statements over the queue of consolidations.

Every function works within the caller's transaction. A job belongs to a user and is written under the lock of the
user's row, like all that is the user's; a heartbeat alone is not, since it touches one row on one condition. So no two
transactions wait for each other in a circle.

A claim raises the user's fence and stamps it on the job. A worker that wakes late holds an older fence, and is refused.
All times are the database's.
"""

import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    delete,
    func,
    insert,
    null,
    or_,
    select,
    type_coerce,
    update,
)

from locas_storage.records.bounds import new_item_id
from locas_storage.records.jobs import Job, Lease
from locas_storage.records.turns import UserKey, UserState
from locas_storage.rules import queue
from locas_storage.rules.queue import LEASE_EXPIRED, MAX_ATTEMPTS
from locas_storage.sql.statements import audit, users
from locas_storage.sql.tables import rows
from locas_storage.sql.tables.columns import BigInt, DbNow
from locas_storage.sql.tables.schema import job, revision, subject, turn

_OPEN = ("ready", "leased")
_NO_LEASE = {"lease_owner": None, "lease_fence": None, "lease_until": None}
_LOOK_AHEAD = 8
"""Due jobs looked at for each one to be claimed, to find some of similar length."""


def enqueue(connection: Connection, state: UserState, to_seq: int, *, stops: Sequence[int] = ()) -> None:
    """Ask for the turns of a locked user up to `to_seq` to be learnt.

    An open job is asked for more; learnt turns are not asked for.
    """
    to_seq = min(to_seq, state.next_seq - 1)
    if to_seq <= state.consolidated_seq:
        return
    found = open_job(connection, state.key)
    if found is not None:
        if to_seq > found.to_seq:
            connection.execute(update(job).where(job.c.id == found.id).values(to_seq=to_seq))
        return
    values = {
        "id": uuid.UUID(new_item_id()),
        "to_seq": to_seq,
        "epoch": state.epoch,
        "run_after": DbNow(),
    }
    limits = {"max_attempts": MAX_ATTEMPTS, "stops": list(stops) or null()}
    connection.execute(insert(job).values(rows.key_columns(state.key) | values | limits))


def open_job(connection: Connection, key: UserKey) -> Row[Any] | None:
    """Return the open job of a locked user."""
    return connection.execute(select(job).where(rows.belongs_to(job, key), job.c.state.in_(_OPEN))).one_or_none()


def withdraw(connection: Connection, key: UserKey) -> None:
    """Delete the open job of a locked user: its holder is refused."""
    connection.execute(delete(job).where(rows.belongs_to(job, key), job.c.state.in_(_OPEN)))


def hand_back(connection: Connection, key: UserKey) -> None:
    """Give the open job of a locked user back if a worker holds it: that worker is refused, another may claim it."""
    found = open_job(connection, key)
    if found is not None and found.state == "leased":
        release(connection, found)


def choose(connection: Connection, limit: int, key: UserKey | None, backbone: str | None) -> list[Row[Any]]:
    """Return due jobs that are to be claimed together, without locking them."""
    waiting = and_(rows_of_job(turn), turn.c.seq > subject.c.consolidated_seq, turn.c.seq <= job.c.to_seq)
    pending = select(func.coalesce(func.sum(turn.c.token_count), 0)).where(waiting).scalar_subquery()
    due = (
        select(job, pending.label("pending_tokens"))
        .join(subject, rows_of_job(subject))
        .where(_is_due())
        .order_by(job.c.run_after, job.c.id)
    )
    if key is not None:
        due = due.where(rows.belongs_to(job, key))
    if backbone is not None:
        current = and_(rows_of_job(revision), revision.c.rev == subject.c.head_rev)
        of_head = select(revision.c.base_fingerprint).where(current).scalar_subquery()
        due = due.where(func.coalesce(of_head, "").in_(("", backbone)))
    return queue.claimable_together(connection.execute(due.limit(max(0, limit) * _LOOK_AHEAD)).all(), limit)


def take(connection: Connection, found: Row[Any], state: UserState, owner: str, lease_seconds: float) -> Lease | None:
    """Claim a job of a locked user if it is still due. One that was claimed too often becomes a dead letter."""
    still = connection.execute(select(job).where(job.c.id == found.id, _is_due())).one_or_none()
    if still is None:
        return None
    tokens = int(found.pending_tokens)
    if still.attempts >= still.max_attempts:
        _mark_dead(connection, state.key, still, LEASE_EXPIRED, tokens)
        return None
    fence = state.fence + 1
    stamp = {"state": "leased", "lease_owner": owner, "lease_fence": fence, "lease_until": _in_seconds(lease_seconds)}
    claimed = connection.execute(
        update(job).where(job.c.id == found.id, _is_due()).values(stamp | {"attempts": still.attempts + 1})
    )
    if claimed.rowcount != 1:  # its holder's heartbeat came first
        return None
    users.advance(connection, state, fence=fence)
    return Lease(
        state.key, still.id.hex, owner, fence, still.to_seq, tuple(still.stops or ()), tokens, still.attempts + 1
    )


def heartbeat(connection: Connection, lease: Lease, lease_seconds: float) -> None:
    """Prolong a lease.

    Raises:
        LeaseLost: it is not held any more.
    """
    if (
        connection.execute(update(job).where(_holds(lease)).values(lease_until=_in_seconds(lease_seconds))).rowcount
        != 1
    ):
        raise queue.lost(lease)


def held(connection: Connection, key: UserKey, lease: Lease) -> Row[Any]:
    """Return the job of a lease on a locked user.

    Raises:
        LeaseLost: it is not held any more, or is on another user.
    """
    found = connection.execute(select(job).where(rows.belongs_to(job, key), _holds(lease))).one_or_none()
    if found is None:
        raise queue.lost(lease)
    return found


def complete(connection: Connection, lease: Lease, found: Row[Any], to_seq: int) -> None:
    """End the job of a held lease if turns up to `to_seq` were all it claimed; go on with what was asked for since."""
    if to_seq < lease.to_seq:
        return
    if found.to_seq > lease.to_seq:
        again = {"state": "ready", "attempts": 0, "run_after": DbNow(), "last_error": None, "stops": null()} | _NO_LEASE
        connection.execute(update(job).where(job.c.id == found.id).values(again))
    else:
        connection.execute(delete(job).where(job.c.id == found.id))


def fail(connection: Connection, lease: Lease, found: Row[Any], reason: str, retry_seconds: float) -> None:
    """Give a held job back to be tried again later, or make it a dead letter."""
    if found.attempts >= found.max_attempts:
        _mark_dead(connection, lease.key, found, reason, lease.pending_tokens)
        return
    later = {"state": "ready", "run_after": _in_seconds(retry_seconds), "last_error": reason} | _NO_LEASE
    connection.execute(update(job).where(job.c.id == found.id).values(later))


def release(connection: Connection, found: Row[Any]) -> None:
    """Give a held job back as if it had not been claimed."""
    connection.execute(
        update(job).where(job.c.id == found.id).values({"state": "ready", "attempts": job.c.attempts - 1} | _NO_LEASE)
    )


def all_of(connection: Connection, tenant: str | None) -> list[Job]:
    """Return every job, in the order of their turn."""
    query = select(job).where(job.c.state.in_((*_OPEN, "dead"))).order_by(job.c.run_after, job.c.id)
    if tenant is not None:
        query = query.where(job.c.tenant_id == tenant)
    return [
        Job(
            UserKey(row.tenant_id, row.subject_id),
            row.id.hex,
            row.state,
            row.to_seq,
            row.stops is not None,
            row.attempts,
            row.last_error,
        )
        for row in connection.execute(query)
    ]


def rows_of_job(table: Any) -> ColumnElement[bool]:
    """Return the condition that a row belongs to the user of a job."""
    return and_(table.c.tenant_id == job.c.tenant_id, table.c.subject_id == job.c.subject_id)


def _mark_dead(connection: Connection, key: UserKey, found: Row[Any], reason: str, tokens: int) -> None:
    """Make a job a dead letter; of several the last one is kept. For the policy it counts as a refusal."""
    connection.execute(delete(job).where(rows.belongs_to(job, key), job.c.state == "dead"))
    connection.execute(
        update(job).where(job.c.id == found.id).values({"state": "dead", "last_error": reason} | _NO_LEASE)
    )
    audit.record(
        connection,
        key,
        "refuse",
        {"reason": reason, "to_seq": found.to_seq, "tokens": tokens, "attempts": found.attempts},
    )


def _holds(lease: Lease) -> ColumnElement[bool]:
    same = (
        job.c.id == uuid.UUID(lease.job_id),
        job.c.state == "leased",
        job.c.lease_owner == lease.owner,
        job.c.lease_fence == lease.fence,
    )
    return and_(rows.belongs_to(job, lease.key), *same)


def _is_due() -> ColumnElement[bool]:
    is_ready = and_(job.c.state == "ready", job.c.run_after <= DbNow())
    return or_(is_ready, and_(job.c.state == "leased", job.c.lease_until <= DbNow()))


def _in_seconds(seconds: float) -> ColumnElement[Any]:
    return type_coerce(DbNow(), BigInt) + round(seconds * 1_000_000)
