"""Owns `SqlMemoryStore`: the transactions over SQLite and other SQL databases.

Knows nothing of drivers and pragmas (`engine.py`) nor of versions of the tables (`opening.py`).

Two rules hold it together. One transaction commits a consolidation: payload, study items, revision, counters; training
runs outside it. Whatever changes a user locks the user's row first.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from locas_storage import opening, rows, rules
from locas_storage.base import MemoryStore
from locas_storage.engine import Database
from locas_storage.errors import RevisionConflict
from locas_storage.records import (
    MAX_INTEGER,
    AuditEntry,
    Revision,
    RevisionDraft,
    StudyItem,
    Turn,
    TurnDraft,
    UserKey,
    UserState,
    new_item_id,
    plain_json,
)
from locas_storage.schema import DbNow, audit, blob, revision, study_event, study_item, subject, turn

logger = logging.getLogger(__name__)

_VALUES_PER_STATEMENT = 500
"""Databases limit how many values one statement may carry."""


def _no_fault(name: str) -> None:
    """Do nothing; a crash test puts a function here that ends the process at a named step."""


class SqlMemoryStore:
    """A `MemoryStore` in an SQL database. Constructing it opens nothing; the first use does, and makes the tables.

    Args:
        url: any SQLAlchemy URL; `sqlite:///locas.db` is a file, `sqlite://` a database in memory.
        fault_point: called with the name of each step of a change.

    Raises:
        StoreUnavailable: not a URL, or its driver is not installed.
    """

    def __init__(self, url: str, *, fault_point: Callable[[str], None] = _no_fault) -> None:
        self._database = Database(url)
        self._fault_point = fault_point
        self._is_ready = False

    def __repr__(self) -> str:
        return f"SqlMemoryStore({self._database.name!r})"

    def append(self, key: UserKey, drafts: Sequence[TurnDraft]) -> list[Turn]:
        """See `MemoryStore.append`."""
        if not drafts:
            return []
        with self._write() as connection:
            state = _locked(connection, key) or _new_user(connection, key)
            self._fault_point("append.user")
            now = connection.scalars(select(DbNow())).one()
            known = _turns_by_key(connection, key, [draft.key for draft in drafts if draft.key is not None])
            added: list[Turn] = []
            answered: list[Turn] = []
            for draft in drafts:
                idem_key = draft.key or new_item_id()
                if idem_key not in known:
                    known[idem_key] = rules.new_turn(draft, seq=state.next_seq + len(added), key=idem_key, created_at=now)
                    added.append(known[idem_key])
                answered.append(known[idem_key])
            if added:
                connection.execute(insert(turn), [rows.turn_values(key, one) for one in added])
                self._fault_point("append.turns")
                _advance(connection, state, next_seq=state.next_seq + len(added))
            self._fault_point("append.before_commit")
        self._fault_point("append.after_commit")
        return answered

    def turns(self, key: UserKey, *, after: int = 0, upto: int | None = None, newest: int | None = None) -> list[Turn]:
        """See `MemoryStore.turns`."""
        rules.check_newest(newest)
        query = select(turn).where(rows.of(turn, key), turn.c.seq > _clamped(after))
        if upto is not None:
            query = query.where(turn.c.seq <= _clamped(upto))
        if newest is not None:
            query = query.order_by(turn.c.seq.desc()).limit(_clamped(newest))
        else:
            query = query.order_by(turn.c.seq)
        with self._read() as connection:
            found = connection.execute(query).all()
        return sorted(map(rows.turn, found), key=lambda one: one.seq)

    def state(self, key: UserKey) -> UserState | None:
        """See `MemoryStore.state`."""
        with self._read() as connection:
            row = connection.execute(select(subject).where(rows.of(subject, key))).one_or_none()
        return None if row is None else rows.state(row)

    def users(self, tenant: str | None = None) -> list[UserKey]:
        """See `MemoryStore.users`."""
        rules.check_tenant(tenant)
        query = select(subject.c.tenant_id, subject.c.subject_id)
        if tenant is not None:
            query = query.where(subject.c.tenant_id == tenant)
        with self._read() as connection:
            found = connection.execute(query).all()
        # Sorted here: databases differ in how they order text.
        return [UserKey(*names) for names in sorted((row.tenant_id, row.subject_id) for row in found)]

    def study_items(self, key: UserKey, *, with_retired: bool = False) -> list[StudyItem]:
        """See `MemoryStore.study_items`."""
        query = select(study_item).where(rows.of(study_item, key)).order_by(study_item.c.added_rev, study_item.c.position)
        if not with_retired:
            query = query.where(study_item.c.retired_rev.is_(None))
        with self._read() as connection:
            return [rows.item(row) for row in connection.execute(query)]

    def commit(self, key: UserKey, draft: RevisionDraft) -> Revision:
        """See `MemoryStore.commit`."""
        digest = hashlib.sha256(draft.payload).hexdigest()
        with self._write() as connection:
            state = rules.require_user(_locked(connection, key), key)
            rules.check_follows(draft, state)
            self._fault_point("commit.user")
            known = select(blob.c.sha256).where(rows.of(blob, key), blob.c.sha256 == digest)
            if connection.scalar(known) is None:
                size = len(draft.payload)
                values = rows.owner(key) | {"sha256": digest, "size": size, "store": "db", "data": draft.payload, "created_at": DbNow()}
                connection.execute(insert(blob).values(values))
            self._fault_point("commit.payload")
            number = _next_number(connection, key)
            span = _span_digest(connection, key, draft.from_seq, draft.to_seq)
            values = rows.revision_values(key, draft, number=number, turns_sha256=span, blob_sha256=digest)
            connection.execute(insert(revision).values(values | {"fence": state.fence + 1, "created_at": DbNow()}))
            self._fault_point("commit.revision")
            _change_items(connection, key, draft, number)
            self._fault_point("commit.items")
            _move_head(connection, state, number, draft.to_seq)
            saved = _revision(connection, key, number)
            self._fault_point("commit.before_commit")
        self._fault_point("commit.after_commit")
        return saved

    def revisions(self, key: UserKey) -> list[Revision]:
        """See `MemoryStore.revisions`."""
        with self._read() as connection:
            return [rows.revision(row) for row in connection.execute(rows.select_revisions(key))]

    def revision(self, key: UserKey, number: int | None = None) -> Revision | None:
        """See `MemoryStore.revision`."""
        with self._read() as connection:
            if number is None:
                number = connection.scalar(select(subject.c.head_rev).where(rows.of(subject, key)))
                if not number:
                    return None
            return _revision(connection, key, number)

    def payload(self, key: UserKey, number: int) -> bytes:
        """See `MemoryStore.payload`."""
        with self._read() as connection:
            saved = _revision(connection, key, number)
            if saved.payload_sha256 is None:
                raise rules.no_payload(key, number)
            data = connection.scalars(select(blob.c.data).where(rows.of(blob, key), blob.c.sha256 == saved.payload_sha256)).one()
        return rules.checked(f"payload of revision {number}", bytes(data or b""), size=saved.payload_bytes, sha256=saved.payload_sha256)

    def rollback(self, key: UserKey, number: int) -> Revision:
        """See `MemoryStore.rollback`."""
        with self._write() as connection:
            state = rules.require_user(_locked(connection, key), key)
            restored = None if number == 0 and state.head else _revision(connection, key, number)
            if restored is not None and number == state.head:
                return restored
            now = connection.scalars(select(DbNow())).one()
            made = rules.restoring(restored, number=_next_number(connection, key), parent=state.head, created_at=now)
            connection.execute(insert(revision).values(rows.restored_values(key, made) | {"fence": state.fence + 1}))
            self._fault_point("rollback.revision")
            _restore_items(connection, key, number, made.number)
            self._fault_point("rollback.items")
            _move_head(connection, state, made.number, made.to_seq)
            _record(connection, key, "revert", rules.revert_facts(state, number, made.number))
            self._fault_point("rollback.before_commit")
        self._fault_point("rollback.after_commit")
        return made

    def record(self, key: UserKey, action: str, facts: Mapping[str, Any]) -> None:
        """See `MemoryStore.record`."""
        rules.check_action(action)
        plain = plain_json("facts", facts)
        with self._write() as connection:
            rules.require_user(_locked(connection, key), key)
            _record(connection, key, action, plain)

    def audit(self, key: UserKey) -> list[AuditEntry]:
        """See `MemoryStore.audit`."""
        with self._read() as connection:
            found = connection.execute(select(audit).where(rows.of(audit, key)).order_by(audit.c.seq)).all()
        entries = [(rows.audit_entry(row), row.sha256) for row in found]
        rules.check_audit(key, entries)
        return [entry for entry, _ in entries]

    def close(self) -> None:
        """Close the connections. Using the store again opens new ones; a database in memory is then empty."""
        with self._database.opening:
            self._database.close()
            self._is_ready = False

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        self._open()
        with self._database.read() as connection:
            yield connection

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        self._open()
        with self._database.write() as connection:
            yield connection

    def _open(self) -> None:
        if self._is_ready:
            return
        with self._database.opening:
            if not self._is_ready:
                opening.prepare(self._database)
                self._is_ready = True


def open_store(url: str) -> MemoryStore:
    """Return the store at a SQLAlchemy URL, such as `sqlite:///locas.db`; nothing is opened before its first use."""
    return SqlMemoryStore(url)


def _locked(connection: Connection, key: UserKey) -> UserState | None:
    # SQLite leaves FOR UPDATE out; its write transaction holds the only write lock already.
    row = connection.execute(select(subject).where(rows.of(subject, key)).with_for_update()).one_or_none()
    return None if row is None else rows.state(row)


def _new_user(connection: Connection, key: UserKey) -> UserState:
    try:
        with connection.begin_nested():
            connection.execute(insert(subject).values(rows.owner(key) | {"created_at": DbNow()}))
    except IntegrityError:
        logger.debug("user created by another transaction meanwhile", extra={"user": key.short_hash})
    return rules.require_user(_locked(connection, key), key)


def _advance(connection: Connection, state: UserState, **counters: int) -> None:
    """Change a user's counters if they are still those of `state`."""
    same = (subject.c.head_rev == state.head, subject.c.fence == state.fence, subject.c.next_seq == state.next_seq)
    values = counters | {"lock_version": subject.c.lock_version + 1}
    moved = connection.execute(update(subject).where(rows.of(subject, state.key), *same).values(values))
    if moved.rowcount != 1:
        raise RevisionConflict("the user's counters changed during the call; someone saved first, call again")


def _move_head(connection: Connection, state: UserState, number: int, consolidated_seq: int) -> None:
    _advance(connection, state, head_rev=number, next_rev=number + 1, consolidated_seq=consolidated_seq, fence=state.fence + 1)


def _next_number(connection: Connection, key: UserKey) -> int:
    return int(connection.scalars(select(subject.c.next_rev).where(rows.of(subject, key))).one())


def _revision(connection: Connection, key: UserKey, number: int) -> Revision:
    row = None
    if 0 < number <= MAX_INTEGER:
        row = connection.execute(rows.select_revisions(key).where(revision.c.rev == number)).one_or_none()
    if row is None:
        raise rules.not_found(key, number)
    return rows.revision(row)


def _turns_by_key(connection: Connection, key: UserKey, idem_keys: Iterable[str]) -> dict[str, Turn]:
    known = {}
    for chunk in _chunks(idem_keys):
        for row in connection.execute(select(turn).where(rows.of(turn, key), turn.c.idem_key.in_(chunk))):
            known[row.idem_key] = rows.turn(row)
    return known


def _span_digest(connection: Connection, key: UserKey, from_seq: int, to_seq: int) -> str:
    query = select(turn.c.content_sha256).where(rows.of(turn, key), turn.c.seq.between(from_seq, to_seq)).order_by(turn.c.seq)
    return rules.turns_digest(connection.scalars(query))


def _change_items(connection: Connection, key: UserKey, draft: RevisionDraft, number: int) -> None:
    added = [item.item_id for item in draft.new_items]
    taken = 0
    for chunk in _chunks(added):
        taken += connection.scalar(select(func.count()).where(rows.of(study_item, key), study_item.c.item_id.in_(chunk))) or 0
    if taken:
        raise rules.stale_items(taken, "new under an id that is in use")
    retired = _mark(connection, key, draft.retired_items, number, "retired")
    if retired != len(draft.retired_items):
        raise rules.stale_items(len(draft.retired_items) - retired, "to be retired but not in force")
    if added:
        values = [rows.item_values(key, item, number=number, position=place) for place, item in enumerate(draft.new_items)]
        connection.execute(insert(study_item), values)


def _restore_items(connection: Connection, key: UserKey, restored: int, number: int) -> None:
    """Put study items in and out of force as they were at revision `restored`; the events of it carry `number`."""
    in_force_then = set(connection.scalars(select(study_item.c.item_id).where(rows.of(study_item, key), study_item.c.added_rev <= restored)))
    events = select(study_event).where(rows.of(study_event, key), study_event.c.rev <= restored).order_by(study_event.c.rev)
    for row in connection.execute(events):
        if row.event == "retired":
            in_force_then.discard(row.item_id)
        else:
            in_force_then.add(row.item_id)
    in_force_now = set(connection.scalars(select(study_item.c.item_id).where(rows.of(study_item, key), study_item.c.retired_rev.is_(None))))
    _mark(connection, key, in_force_now - in_force_then, number, "retired")
    _mark(connection, key, in_force_then - in_force_now, number, "restored")


def _mark(connection: Connection, key: UserKey, item_ids: Iterable[str], number: int, event: str) -> int:
    """Put study items out of force or back into it; return how many were not so already."""
    changed = 0
    in_force = study_item.c.retired_rev.is_(None)
    was, after = (in_force, number) if event == "retired" else (~in_force, None)
    for chunk in _chunks(sorted(item_ids)):
        changing = update(study_item).where(rows.of(study_item, key), study_item.c.item_id.in_(chunk), was)
        ids = connection.scalars(changing.values(retired_rev=after).returning(study_item.c.item_id)).all()
        if ids:
            connection.execute(insert(study_event), [rows.owner(key) | {"item_id": one, "rev": number, "event": event} for one in ids])
        changed += len(ids)
    return changed


def _record(connection: Connection, key: UserKey, action: str, facts: Mapping[str, Any]) -> None:
    """Add a line to the audit trail; the user's row is locked by the caller."""
    last = connection.execute(select(audit.c.seq, audit.c.sha256).where(rows.of(audit, key)).order_by(audit.c.seq.desc()).limit(1)).one_or_none()
    seq, previous = (last.seq + 1, last.sha256) if last else (1, rules.FIRST_PREVIOUS)
    entry = AuditEntry(seq, action, facts, connection.scalars(select(DbNow())).one())
    hashes = {"previous_sha256": previous, "sha256": rules.audit_digest(key, previous, entry)}
    values = {"seq": seq, "action": action, "facts": dict(facts), "created_at": entry.created_at}
    connection.execute(insert(audit).values(rows.owner(key) | values | hashes))


def _clamped(number: int) -> int:
    """Keep a number within what a column holds; beyond it no row differs."""
    return max(-MAX_INTEGER, min(MAX_INTEGER, number))


def _chunks(values: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(values)
    while chunk := list(islice(rest, _VALUES_PER_STATEMENT)):
        yield chunk
