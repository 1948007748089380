"""Owns `SqlMemoryStore`: which statements make one transaction, and in which order.

Knows nothing of drivers and pragmas (`engine.py`), of versions of the tables (`opening.py`), nor of the statements
themselves: each concern has its module of functions that work within a transaction.

Two rules hold it together. One transaction commits a consolidation: payload, study items, revision, counters; training
runs outside it. Whatever changes a user locks the user's row first.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, select

from locas_storage import counters, index, items, jobs, journal, opening, payloads, revisions, rules, trail, verify, words
from locas_storage.engine import Database
from locas_storage.errors import RevisionConflict
from locas_storage.files import PayloadFiles
from locas_storage.keys import KeyProvider
from locas_storage.leases import Lease
from locas_storage.receipts import Receipt
from locas_storage.records import (
    AuditEntry,
    FoundTurn,
    Revision,
    RevisionDraft,
    StudyItem,
    Turn,
    TurnDraft,
    UserKey,
    UserState,
    check_query,
    plain_json,
)
from locas_storage.schema import DbNow
from locas_storage.sql_forgetting import SqlForgetting
from locas_storage.sql_queue import SqlJobQueue
from locas_storage.vault import Vault
from locas_storage.verify import Verification


def _no_fault(name: str) -> None:
    """Do nothing; a crash test puts a function here that ends the process at a named step."""


class SqlMemoryStore:
    """A `MemoryStore` in an SQL database. Constructing it opens nothing; the first use does, and makes the tables.

    Args:
        url: an SQLAlchemy URL of SQLite or PostgreSQL; `sqlite:///locas.db` is a file, `sqlite://` a database in memory.
        keep_payloads: how many different payloads of a user are kept, the newest; revisions beyond them are pruned.
        files: where payloads larger than `inline_bytes` go, a folder or any place fsspec can write to; all stores on one
            database name the same place. Without it every payload lies in the database. Needs the extra `files`.
        inline_bytes: largest payload that lies in the database although there are files.
        key_provider: with it turns, study items and payloads are kept encrypted, each user's under a data key of its own that the
            provider wraps; content in the clear is then refused, as without it encrypted content is. Needs the extra `encryption`.
        fault_point: called with the name of each step of a change.

    Raises:
        StoreUnavailable: not a URL, or its driver, fsspec or what that needs, or cryptography is not installed.
        InvalidRevision: `keep_payloads` is less than 1.
    """

    def __init__(
        self,
        url: str,
        *,
        keep_payloads: int = rules.KEEP_PAYLOADS,
        files: str | None = None,
        inline_bytes: int = 32 << 20,
        key_provider: KeyProvider | None = None,
        fault_point: Callable[[str], None] = _no_fault,
    ) -> None:
        rules.check_keep(keep_payloads)
        self._database = Database(url)
        self._keep_payloads = keep_payloads
        self._files = PayloadFiles(files) if files is not None else None
        self._inline_bytes = inline_bytes
        self._vault = Vault(key_provider)
        self._fault_point = fault_point
        self._is_ready = False
        self.queue = SqlJobQueue(self._read, self._write, fault_point)
        self._forgetting = SqlForgetting(
            self._read, self._write, overwrite=self._database.overwrite_log, remove_files=self._remove_files, fault_point=fault_point
        )

    def __repr__(self) -> str:
        return f"SqlMemoryStore({self._database.name!r})"

    def append(self, key: UserKey, drafts: Sequence[TurnDraft], *, enqueue: int | None = None) -> list[Turn]:
        """See `MemoryStore.append`."""
        if not drafts:
            return []
        with self._write() as connection:
            state = counters.locked_or_new(connection, key)
            self._fault_point("append.user")
            seal = self._vault.seal_for_append(connection, state)
            answered, added = journal.append(connection, key, drafts, seal, next_seq=state.next_seq, now=_now(connection))
            self._fault_point("append.turns")
            if not seal.is_encrypting:  # the words would tell what was said
                index.add(connection, key, added)
            self._fault_point("append.index")
            if added:
                counters.advance(connection, state, next_seq=state.next_seq + len(added))
            if enqueue is not None:
                jobs.ask(connection, replace(state, next_seq=state.next_seq + len(added)), enqueue)
            self._fault_point("append.before_commit")
        self._fault_point("append.after_commit")
        return answered

    def turns(self, key: UserKey, *, after: int = 0, upto: int | None = None, newest: int | None = None) -> list[Turn]:
        """See `MemoryStore.turns`."""
        rules.check_newest(newest)
        with self._read() as connection:
            return journal.turns(connection, key, self._vault.seal(connection, key), after=after, upto=upto, newest=newest)

    def search(self, key: UserKey, text: str, *, limit: int = 10) -> list[FoundTurn]:
        """See `MemoryStore.search`."""
        check_query(text, limit)
        wanted = words.query_words(text)
        with self._read() as connection:
            state = counters.state(connection, key)
            seal = self._vault.seal(connection, key)
            if seal.is_encrypting:
                found = words.sharing(journal.turns(connection, key, seal) if wanted else [], wanted)
            else:
                found = index.candidates(connection, key, wanted, seal)
        return words.rank(wanted, found, turns=state.turns, limit=limit) if state else []

    def state(self, key: UserKey) -> UserState | None:
        """See `MemoryStore.state`."""
        with self._read() as connection:
            return counters.state(connection, key)

    def users(self, tenant: str | None = None) -> list[UserKey]:
        """See `MemoryStore.users`."""
        rules.check_tenant(tenant)
        with self._read() as connection:
            return counters.users(connection, tenant)

    def study_items(self, key: UserKey, *, with_retired: bool = False) -> list[StudyItem]:
        """See `MemoryStore.study_items`."""
        with self._read() as connection:
            return items.all_of(connection, key, self._vault.seal(connection, key), with_retired=with_retired)

    def commit(self, key: UserKey, draft: RevisionDraft, *, lease: Lease | None = None) -> Revision:
        """See `MemoryStore.commit`."""
        with self._read() as connection:
            counters.standing(connection, key)  # or the payload's file would be written for nobody
            seal = self._vault.seal(connection, key)
        payload = payloads.prepare(draft, key, seal, self._files, inline_bytes=self._inline_bytes)
        self._fault_point("commit.file")
        with self._write() as connection:
            state = counters.locked(connection, key)
            held = jobs.held(connection, key, lease) if lease is not None else None
            rules.check_follows(draft, state)
            if self._vault.seal(connection, key) != seal:
                raise RevisionConflict("the user was erased and began again while this was learnt; consolidate again")
            self._fault_point("commit.user")
            payloads.keep(connection, key, payload, self._files)
            self._fault_point("commit.payload")
            number = counters.next_revision(connection, key)
            span = journal.span_digest(connection, key, draft.from_seq, draft.to_seq, seal)
            revisions.add(connection, key, draft, number=number, fence=state.fence + 1, turns_sha256=span, kept=payload)
            self._fault_point("commit.revision")
            items.change(connection, key, draft, number, seal)
            self._fault_point("commit.items")
            counters.move_head(connection, state, number, draft.to_seq)
            if lease is not None and held is not None:
                jobs.settle(connection, lease, held, draft.to_seq)
            saved = revisions.one(connection, key, number)
            gone = payloads.prune(connection, key, self._keep_payloads)
            self._fault_point("commit.before_commit")
        self._fault_point("commit.after_commit")
        self._remove_files(key, gone)
        return saved

    def revisions(self, key: UserKey) -> list[Revision]:
        """See `MemoryStore.revisions`."""
        with self._read() as connection:
            return revisions.all_of(connection, key)

    def revision(self, key: UserKey, number: int | None = None) -> Revision | None:
        """See `MemoryStore.revision`."""
        with self._read() as connection:
            if number is None:
                state = counters.state(connection, key)
                if state is None or state.head == 0:
                    return None
                number = state.head
            return revisions.one(connection, key, number)

    def payload(self, key: UserKey, number: int) -> bytes:
        """See `MemoryStore.payload`."""
        with self._read() as connection:
            saved = revisions.one(connection, key, number)
            return payloads.read(connection, key, saved, self._files, self._vault.seal(connection, key))

    def rollback(self, key: UserKey, number: int) -> Revision:
        """See `MemoryStore.rollback`."""
        with self._write() as connection:
            state = counters.locked(connection, key)
            restored = None if number == 0 and state.head else revisions.one(connection, key, number)
            if restored is not None and number == state.head:
                return restored
            if restored is not None:
                rules.require_kept(restored, key)
            next_number = counters.next_revision(connection, key)
            made = rules.restoring(restored, number=next_number, parent=state.head, created_at=_now(connection))
            revisions.add_restored(connection, key, made, fence=state.fence + 1)
            self._fault_point("rollback.revision")
            items.restore(connection, key, number, made.number)
            self._fault_point("rollback.items")
            counters.move_head(connection, state, made.number, made.to_seq)
            trail.record(connection, key, "revert", rules.revert_facts(state, number, made.number))
            self._fault_point("rollback.before_commit")
        self._fault_point("rollback.after_commit")
        return made

    def forget(self, key: UserKey, turns: Iterable[int]) -> Receipt:
        """See `MemoryStore.forget`."""
        return self._forgetting.forget(key, turns)

    def erase(self, key: UserKey) -> Receipt:
        """See `MemoryStore.erase`."""
        made = self._forgetting.erase(key)
        self._vault.forget(key)
        return made

    def begin_again(self, key: UserKey) -> None:
        """See `MemoryStore.begin_again`."""
        self._forgetting.begin_again(key)

    def expire(self, key: UserKey | None = None) -> dict[UserKey, Receipt]:
        """See `MemoryStore.expire`."""
        return self._forgetting.expire(key)

    def record(self, key: UserKey, action: str, facts: Mapping[str, Any]) -> None:
        """See `MemoryStore.record`."""
        rules.check_action(action)
        plain = plain_json("facts", facts)
        with self._write() as connection:
            counters.locked(connection, key)
            trail.record(connection, key, action, plain)

    def audit(self, key: UserKey) -> list[AuditEntry]:
        """See `MemoryStore.audit`."""
        with self._read() as connection:
            entries = trail.lines(connection, key)
        rules.check_audit(key, entries)
        return [entry for entry, _ in entries]

    def verify(self, *, tenant: str | None = None, user: str | None = None) -> Verification:
        """Check every invariant and digest of one user, of a tenant's or of all, and name what does not hold.

        Whatever of an encrypted store is checked has to be decrypted for it: it needs the keys.

        Args:
            tenant: whose users; all tenants unless given.
            user: only this one, of the given tenant.

        Raises:
            InvalidTurn: a user is given and no tenant.
        """
        return verify.verify(self._read, self._vault.seal, self._files, tenant=tenant, user=user)

    def rotate_keys(self) -> int:
        """Wrap every user's data key under the key provider's current key, and return how many were under another. Content stays as it is.

        Raises:
            EncryptionMismatch: the store was opened without `key_provider`.
            KeyUnavailable: a data key cannot be unwrapped or wrapped; those done before stay done.
        """
        changed = 0
        for key in self.users():
            with self._write() as connection:
                changed += self._vault.rewrap(connection, key)
        return changed

    def close(self) -> None:
        """Close the connections. Using the store again opens new ones; a database in memory is then empty."""
        with self._database.opening:
            self._database.close()
            self._is_ready = False

    def collect(self, *, grace_seconds: float = 3600.0) -> int:
        """Delete the files that no row names, which a crash may leave, and return how many those were.

        Args:
            grace_seconds: leave younger files alone, since a commit writes the file before the row.
        """
        if self._files is None:
            return 0
        users = {key.digest: key for key in self.users()}
        old: dict[str, list[str]] = {}
        for owner, name in self._files.older_than(dt.datetime.now(dt.UTC) - dt.timedelta(seconds=grace_seconds)):
            old.setdefault(owner, []).append(name)
        removed = 0
        for owner, names in old.items():
            if owner in users:
                removed += self._remove_files(users[owner], names)
            else:
                for name in names:
                    self._files.remove(owner, name)
                removed += len(names)
        return removed

    def _remove_files(self, key: UserKey, digests: Sequence[str]) -> int:
        """Delete those files of a user that no row names, and return how many those were."""
        if not digests or self._files is None:
            return 0
        with self._write() as connection:
            counters.locked_tombstone(connection, key)  # whoever brings such a file back has to wait
            unnamed = payloads.without_row(connection, key, digests)
            for digest in unnamed:
                self._files.remove(key.digest, digest)
        return len(unnamed)

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


def open_store(url: str, *, files: str | None = None, key_provider: KeyProvider | None = None) -> SqlMemoryStore:
    """Return the store at a SQLAlchemy URL, such as `sqlite:///locas.db`; nothing is opened before its first use.

    Args:
        url: of an SQLite or PostgreSQL database.
        files: see `SqlMemoryStore`.
        key_provider: see `SqlMemoryStore`.
    """
    return SqlMemoryStore(url, files=files, key_provider=key_provider)


def _now(connection: Connection) -> dt.datetime:
    return connection.scalars(select(DbNow())).one()
