"""Owns `SqlRevisions`: committing what was learnt, rolling back, and reading revisions, in an SQL database.

One transaction commits a consolidation: payload, study items, revision, counters; training runs outside it.
"""

from collections.abc import Callable
from contextlib import suppress

from sqlalchemy import select

from locas_storage.encryption.envelope import Cipher
from locas_storage.errors import RevisionConflict, StorageError
from locas_storage.records.jobs import Lease
from locas_storage.records.revisions import Revision, RevisionDraft
from locas_storage.records.turns import UserKey
from locas_storage.rules import commit
from locas_storage.sql.data_keys import DataKeys
from locas_storage.sql.maintenance.upkeep import SqlUpkeep
from locas_storage.sql.queue import Transaction
from locas_storage.sql.statements import audit, jobs, payloads, revisions, study_items, turns, users
from locas_storage.sql.statements.payloads import RetentionPolicy, StagedPayload
from locas_storage.sql.tables.columns import DbNow


class SqlRevisions:
    """What a store does with revisions.

    Args:
        read: begins a transaction that reads.
        write: begins one that writes.
        data_keys: the users' data keys.
        keeping: where payloads lie and how many are kept.
        upkeep: removes the files of payloads that are given up.
        fault_point: called with the name of each step of a change.
    """

    def __init__(
        self,
        read: Transaction,
        write: Transaction,
        *,
        data_keys: DataKeys,
        keeping: RetentionPolicy,
        upkeep: SqlUpkeep,
        fault_point: Callable[[str], None],
    ) -> None:
        self._read = read
        self._write = write
        self._data_keys = data_keys
        self._keeping = keeping
        self._upkeep = upkeep
        self._fault_point = fault_point

    def commit(self, key: UserKey, draft: RevisionDraft, lease: Lease | None) -> Revision:
        """See `MemoryStore.commit`."""
        with self._read() as connection:
            users.standing(connection, key)  # or the payload's file would be written for nobody
            seal = self._data_keys.seal(connection, key)
        # Its number is known before the commit: it follows the parent, or the commit is refused.
        payload = payloads.prepare(draft.payload, draft.parent + 1, draft.fingerprint, key, seal, self._keeping)
        try:
            return self._save(key, draft, lease, seal, payload)
        except StorageError:
            if payload.data is None:  # nobody names its file, unless another has committed the same bytes
                with suppress(StorageError):
                    self._upkeep.remove_files(key, [payload.sha256])
            raise

    def _save(
        self, key: UserKey, draft: RevisionDraft, lease: Lease | None, seal: Cipher, payload: StagedPayload
    ) -> Revision:
        self._fault_point("commit.file")
        with self._write() as connection:
            state = users.locked(connection, key)
            held = jobs.held(connection, key, lease) if lease is not None else None
            commit.check_follows(draft, state)
            if self._data_keys.seal(connection, key) != seal:
                raise RevisionConflict("the user was erased and began again while this was learnt; consolidate again")
            self._fault_point("commit.user")
            payloads.keep(connection, key, payload, self._keeping.files)
            self._fault_point("commit.payload")
            number = users.next_revision(connection, key)
            span = turns.span_digest(connection, key, draft.from_seq, draft.to_seq, seal)
            revisions.add(connection, key, draft, number=number, fence=state.fence + 1, turns_sha256=span, kept=payload)
            self._fault_point("commit.revision")
            study_items.change(connection, key, draft, number, seal)
            self._fault_point("commit.items")
            users.move_head(connection, state, number, draft.to_seq)
            if lease is not None and held is not None:
                jobs.complete(connection, lease, held, draft.to_seq)
            saved = revisions.one(connection, key, number)
            gone = payloads.prune(connection, key, self._keeping.most)
            self._upkeep.check_reach(gone)
            self._fault_point("commit.before_commit")
        self._fault_point("commit.after_commit")
        self._upkeep.remove_files(key, gone)
        return saved

    def all_of(self, key: UserKey) -> list[Revision]:
        """See `MemoryStore.revisions`."""
        with self._read() as connection:
            return revisions.all_of(connection, key)

    def one(self, key: UserKey, number: int | None) -> Revision | None:
        """See `MemoryStore.revision`."""
        with self._read() as connection:
            if number is None:
                state = users.state(connection, key)
                if state is None or state.head == 0:
                    return None
                number = state.head
            return revisions.one(connection, key, number)

    def payload(self, key: UserKey, number: int) -> bytes:
        """See `MemoryStore.payload`."""
        with self._read() as connection:
            saved = revisions.one(connection, key, number)
            return payloads.read(connection, key, saved, self._keeping.files, self._data_keys.seal(connection, key))

    def rollback(self, key: UserKey, number: int) -> Revision:
        """See `MemoryStore.rollback`."""
        with self._write() as connection:
            state = users.locked(connection, key)
            restored = None if number == 0 and state.head else revisions.one(connection, key, number)
            if restored is not None and number == state.head:
                return restored
            if restored is not None:
                commit.require_kept(restored, key)
            next_number = users.next_revision(connection, key)
            now = connection.scalars(select(DbNow())).one()
            made = commit.restoring(restored, number=next_number, parent=state.head, created_at=now)
            revisions.add_restored(connection, key, made, fence=state.fence + 1)
            self._fault_point("rollback.revision")
            study_items.restore(connection, key, number, made.number)
            self._fault_point("rollback.items")
            users.move_head(connection, state, made.number, made.to_seq)
            audit.record(connection, key, "revert", commit.revert_facts(state, number, made.number))
            self._fault_point("rollback.before_commit")
        self._fault_point("rollback.after_commit")
        return made
