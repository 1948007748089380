"""Owns `SqlRevisions`: committing what was learnt, cutting over, rolling back, and reading, in an SQL database.

One transaction commits a consolidation: payload, study items, revision, counters; training runs outside it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from sqlalchemy import Connection, select

from locas_storage.encryption.envelope import Cipher
from locas_storage.errors import RevisionConflict, StorageError
from locas_storage.records.jobs import Lease
from locas_storage.records.revisions import Revision, RevisionDraft
from locas_storage.records.turns import UserKey, UserState
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
        retention: where payloads lie and how many are kept.
        upkeep: removes the files of payloads that are given up.
        fault_point: called with the name of each step of a change.
    """

    def __init__(
        self,
        read: Transaction,
        write: Transaction,
        *,
        data_keys: DataKeys,
        retention: RetentionPolicy,
        upkeep: SqlUpkeep,
        fault_point: Callable[[str], None],
    ) -> None:
        self._read = read
        self._write = write
        self._data_keys = data_keys
        self._retention = retention
        self._upkeep = upkeep
        self._fault_point = fault_point

    def commit(self, key: UserKey, draft: RevisionDraft, lease: Lease | None) -> Revision:
        """See `MemoryStore.commit`."""
        with self._read() as connection:
            users.standing(connection, key)  # or the payload's file would be written for nobody
            cipher = self._data_keys.cipher(connection, key)
        # Its number is known before the commit: it follows the parent, or the commit is refused.
        payload = payloads.stage(draft.payload, draft.parent + 1, draft.fingerprint, key, cipher, self._retention)
        with self._files_removed_on_refusal(key, [payload]):
            return self._save(key, draft, lease, cipher, payload)

    def cut_over(self, key: UserKey, drafts: Sequence[RevisionDraft], *, fingerprint: str, fence: int) -> Revision:
        """See `MemoryStore.cut_over`."""
        with self._read() as connection:
            state = users.standing(connection, key)
            cipher = self._data_keys.cipher(connection, key)
        commit.check_unmoved(state, fence)
        following = commit.renumbered(drafts, state, fingerprint)
        staged = [
            payloads.stage(draft.payload, draft.parent + 1, fingerprint, key, cipher, self._retention)
            for draft in following
        ]
        with self._files_removed_on_refusal(key, staged):
            self._fault_point("cut_over.files")
            with self._write() as connection:
                state = users.locked(connection, key)
                commit.check_unmoved(state, fence)
                self._check_cipher(connection, key, cipher)
                jobs.hand_back(connection, key)
                self._fault_point("cut_over.job")
                none = self._add_restored(connection, state, None, 0, fingerprint)
                self._fault_point("cut_over.no_memory")
                for draft, payload in zip(following, staged, strict=True):
                    self._add(connection, users.locked(connection, key), draft, payload, cipher)
                    self._fault_point("cut_over.revision")
                saved = revisions.one(connection, key, users.locked(connection, key).head)
                audit.record(connection, key, "revert", commit.cut_over_facts(state, none.number, fingerprint))
                gone = payloads.prune(connection, key, self._retention.most)
                self._upkeep.check_reach(gone)
                self._fault_point("cut_over.before_commit")
            self._fault_point("cut_over.after_commit")
        self._upkeep.remove_files(key, gone)
        return saved

    @contextmanager
    def _files_removed_on_refusal(self, key: UserKey, staged: Sequence[StagedPayload]) -> Iterator[None]:
        """Remove the files that were written for rows that are refused; nobody names them, unless others did before."""
        try:
            yield
        except StorageError:
            files = [payload.sha256 for payload in staged if payload.data is None]
            if files:
                with suppress(StorageError):
                    self._upkeep.remove_files(key, files)
            raise

    def _save(
        self, key: UserKey, draft: RevisionDraft, lease: Lease | None, cipher: Cipher, payload: StagedPayload
    ) -> Revision:
        self._fault_point("commit.file")
        with self._write() as connection:
            state = users.locked(connection, key)
            held = jobs.held(connection, key, lease) if lease is not None else None
            commit.check_follows(draft, state)
            self._check_cipher(connection, key, cipher)
            self._fault_point("commit.user")
            number = self._add(connection, state, draft, payload, cipher)
            if lease is not None and held is not None:
                jobs.complete(connection, lease, held, draft.to_seq)
            saved = revisions.one(connection, key, number)
            gone = payloads.prune(connection, key, self._retention.most)
            self._upkeep.check_reach(gone)
            self._fault_point("commit.before_commit")
        self._fault_point("commit.after_commit")
        self._upkeep.remove_files(key, gone)
        return saved

    def _check_cipher(self, connection: Connection, key: UserKey, cipher: Cipher) -> None:
        if self._data_keys.cipher(connection, key) != cipher:
            raise RevisionConflict("the user was erased and began again while this was learnt; consolidate again")

    def _add(
        self, connection: Connection, state: UserState, draft: RevisionDraft, payload: StagedPayload, cipher: Cipher
    ) -> int:
        """Make a trained revision the current one of a locked user, and return its number."""
        key = state.key
        payloads.keep(connection, key, payload, self._retention.files)
        self._fault_point("commit.payload")
        number = users.next_revision(connection, key)
        span = turns.span_digest(connection, key, draft.from_seq, draft.to_seq, cipher)
        revisions.add(connection, key, draft, number=number, fence=state.fence + 1, turns_sha256=span, kept=payload)
        self._fault_point("commit.revision")
        study_items.change(connection, key, draft, number, cipher)
        self._fault_point("commit.items")
        users.move_head(connection, state, number, draft.to_seq)
        return number

    def _add_restored(
        self, connection: Connection, state: UserState, restored: Revision | None, source: int, fingerprint: str = ""
    ) -> Revision:
        """Make an older revision, or "no memory", the current one of a locked user, with its study items."""
        number = users.next_revision(connection, state.key)
        now = connection.scalars(select(DbNow())).one()
        made = commit.restoring(restored, number=number, parent=state.head, created_at=now, fingerprint=fingerprint)
        revisions.add_restored(connection, state.key, made, fence=state.fence + 1)
        self._fault_point("rollback.revision")
        study_items.restore(connection, state.key, source, number)
        self._fault_point("rollback.items")
        users.move_head(connection, state, number, made.to_seq)
        return made

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
            return payloads.read(connection, key, saved, self._retention.files, self._data_keys.cipher(connection, key))

    def rollback(self, key: UserKey, number: int) -> Revision:
        """See `MemoryStore.rollback`."""
        with self._write() as connection:
            state = users.locked(connection, key)
            restored = None if number == 0 and state.head else revisions.one(connection, key, number)
            if restored is not None and number == state.head:
                return restored
            if restored is not None:
                commit.require_kept(restored, key)
            made = self._add_restored(connection, state, restored, number)
            audit.record(connection, key, "revert", commit.revert_facts(state, number, made.number))
            self._fault_point("rollback.before_commit")
        self._fault_point("rollback.after_commit")
        return made
