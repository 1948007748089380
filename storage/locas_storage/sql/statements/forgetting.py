"""Owns the statements that take away: some turns and what was learnt from them, or everything of a user.

Every function works within the caller's transaction, on a locked user.

Of a forgotten turn a row without content stays, so that turns are numbered without a gap and a late retry of the same
key does not bring it back. Of a revision that saw it a row without bytes and figures stays, so that the chain can be
checked. After erasure the user's row stays as a tombstone, and the audit trail, which holds no content.
"""

import datetime as dt
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sqlalchemy import Connection, delete, func, select, update

from locas_storage.records.bounds import new_item_id
from locas_storage.records.receipts import Receipt
from locas_storage.records.turns import UserKey, UserState
from locas_storage.rules import commit, lineage
from locas_storage.sql.statements import audit, jobs, revisions, search_index, study_items, users
from locas_storage.sql.tables import rows
from locas_storage.sql.tables.columns import DbNow
from locas_storage.sql.tables.parameters import chunks
from locas_storage.sql.tables.schema import api_key, blob, job, revision, study_event, study_item, subject, turn

_EMPTY_SHA256 = hashlib.sha256(b"").digest()


def remove_turns(connection: Connection, key: UserKey, seqs: Sequence[int], now: dt.datetime) -> list[int]:
    """Remove the content of turns; return the numbers of those that had any left to remove."""
    removed: list[int] = []
    for chunk in chunks(seqs):
        removed += connection.scalars(
            select(turn.c.seq).where(rows.belongs_to(turn, key), turn.c.seq.in_(chunk), turn.c.forgotten_at.is_(None))
        )
    search_index.remove(connection, key, removed)
    bare = {
        "content": b"",
        "content_sha256": _EMPTY_SHA256,
        "name": None,
        "session_id": None,
        "token_count": 0,
        "trust": "user",
        "learn": True,
    }
    times = {"said_at": turn.c.created_at, "said_offset": 0, "expires_at": None, "forgotten_at": now}
    for chunk in chunks(removed):
        connection.execute(update(turn).where(rows.belongs_to(turn, key), turn.c.seq.in_(chunk)).values(bare | times))
    return sorted(removed)


def take_key(connection: Connection, key: UserKey, seq: int) -> str:
    """Give a turn that can be read a fresh key, and return the one it had, for the turn that replaces it.

    Raises:
        TurnNotFound: only the turn's number is left.
    """
    here = (rows.belongs_to(turn, key), turn.c.seq == seq)
    had = connection.scalar(select(turn.c.idem_key).where(*here, rows.shown()))
    if had is None:
        raise lineage.not_correctable(key, seq)
    connection.execute(update(turn).where(*here).values(idem_key=new_item_id()))
    return str(had)


def purge_items(connection: Connection, key: UserKey, purged: Sequence[int]) -> int:
    """Delete the study items that purged revisions added, and return how many those were.

    They go whether or not they were asked about a forgotten turn: a question about a later turn may have been asked
    because of it.
    """
    gone = 0
    for chunk in chunks(purged):
        gone += connection.execute(
            delete(study_item).where(rows.belongs_to(study_item, key), study_item.c.added_rev.in_(chunk))
        ).rowcount
    return gone


def detach(connection: Connection, state: UserState, plan: lineage.ForgetPlan, now: dt.datetime) -> UserState:
    """Purge what saw forgotten turns, and make the base current if the current revision is among it.

    The fence rises in any case, so that no consolidation that read the turns before can be committed.
    """
    key = state.key
    if plan.base is None:
        users.advance(connection, state, fence=state.fence + 1)
    else:
        number = users.next_revision(connection, key)
        base = revisions.one(connection, key, plan.base) if plan.base else None
        backbone = revisions.one(connection, key, state.head).fingerprint
        made = commit.restoring(base, number=number, parent=state.head, created_at=now, fingerprint=backbone)
        revisions.add_restored(connection, key, made, fence=state.fence + 1)
        study_items.restore(connection, key, plan.base, number)
        users.move_head(connection, state, number, made.to_seq)
    bare: dict[str, Any] = {
        "state": lineage.ERASED,
        "blob_sha256": None,
        "payload_sha256": None,
        "payload_bytes": None,
        "turns_sha256": "",
        "metrics": {},
    }
    for chunk in chunks(plan.purged):
        connection.execute(
            update(revision).where(rows.belongs_to(revision, key), revision.c.rev.in_(chunk)).values(bare)
        )
    return users.locked(connection, key)


def queue_rebuild(connection: Connection, state: UserState, stops: Sequence[int], asked_seq: int) -> int:
    """Put one new job in the place of the open one, which nobody may finish.

    Return up to which turn it learns again, or 0.

    Args:
        connection: within a transaction.
        state: the user's counters after detaching.
        stops: where the purged consolidations ended.
        asked_seq: up to which turn the open job was to learn, 0 if there was none.
    """
    jobs.withdraw(connection, state.key)
    waiting = tuple(stop for stop in stops if stop > state.consolidated_seq)
    jobs.enqueue(connection, state, max([asked_seq, *waiting]), stops=waiting)
    return waiting[-1] if waiting else 0


def delete_rows(connection: Connection, key: UserKey) -> int:
    """Delete keys, jobs, study items, revisions and turns of a user; return how many study items there were."""
    search_index.remove(connection, key)
    count = connection.scalar(select(func.count()).where(rows.belongs_to(study_item, key))) or 0
    for table in (api_key, job, study_event, study_item, revision, turn):  # children before their parents
        connection.execute(delete(table).where(rows.belongs_to(table, key)))
    return count


def leave_tombstone(connection: Connection, state: UserState, now: dt.datetime) -> None:
    """Turn a user's row into a tombstone.

    No counts, no key, and a fence and an epoch above any that a late writer holds.
    """
    counts: dict[str, Any] = {"next_seq": 1, "next_rev": 1, "head_rev": 0, "consolidated_seq": 0}
    keys = {"wrapped_dek": None, "kek_id": None, "erased_at": now}
    users.advance(connection, state, **counts, **keys, epoch=state.epoch + 1, fence=state.fence + 1)


def revive(connection: Connection, key: UserKey) -> None:
    """Turn a tombstone into a user without turns; epoch and fence stay as high as they are."""
    connection.execute(update(subject).where(rows.belongs_to(subject, key)).values(erased_at=None))


def expired(connection: Connection, key: UserKey | None) -> dict[UserKey, list[int]]:
    """Return the turns whose time is over, by user."""
    query = select(turn.c.tenant_id, turn.c.subject_id, turn.c.seq).where(
        turn.c.expires_at.is_not(None), turn.c.expires_at <= DbNow()
    )
    if key is not None:
        query = query.where(rows.belongs_to(turn, key))
    found: dict[UserKey, list[int]] = {}
    for row in connection.execute(query):
        found.setdefault(UserKey(row.tenant_id, row.subject_id), []).append(row.seq)
    return found


def payload_sizes(connection: Connection, key: UserKey) -> dict[str, int]:
    """Return digest and size of every payload of a user."""
    return {
        row.sha256: row.size
        for row in connection.execute(select(blob.c.sha256, blob.c.size).where(rows.belongs_to(blob, key)))
    }


def receipt(
    connection: Connection,
    key: UserKey,
    action: Literal["forget", "erase"],
    *,
    why: str,
    turns: Sequence[int],
    purged: Sequence[int] = (),
    items_gone: int = 0,
    payloads_gone: Mapping[str, int],
    head: int = 0,
    rebuild_to_seq: int = 0,
) -> Receipt:
    """Put what was removed into the audit trail; return it as a receipt of a file still to be overwritten."""
    facts = {
        "why": why,
        "turns": len(turns),
        "revisions": list(purged),
        "study_items": items_gone,
        "payloads": len(payloads_gone),
        "head": head,
        "rebuild_to_seq": rebuild_to_seq,
    }
    entry, digest = audit.record(connection, key, action, facts)
    return Receipt(
        action=action,
        turns=tuple(turns),
        revisions=tuple(purged),
        study_items=items_gone,
        payloads=tuple(sorted(payloads_gone)),
        payload_bytes=sum(payloads_gone.values()),
        head=head,
        rebuild_to_seq=rebuild_to_seq,
        audit_sha256=digest,
        at=entry.created_at,
        is_overwritten=False,
    )
