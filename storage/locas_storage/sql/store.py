"""Owns `SqlMemoryStore`: which statements make one transaction, and in which order.

One rule holds it together: whatever changes a user locks the user's row first.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from locas_storage.encryption.keys import KeyProvider
from locas_storage.payload_files import PayloadFiles
from locas_storage.records.bounds import check_query, plain_json
from locas_storage.records.jobs import Lease
from locas_storage.records.receipts import Conversion, CorrectedTurn, Receipt
from locas_storage.records.revisions import Revision, RevisionDraft, StudyItem
from locas_storage.records.turns import AuditEntry, FoundTurn, Turn, TurnDraft, UserKey, UserState
from locas_storage.rules import commit, ranking
from locas_storage.sql import version
from locas_storage.sql.api_keys import SqlApiKeys
from locas_storage.sql.data_keys import DataKeys
from locas_storage.sql.database.engine import Database
from locas_storage.sql.forgetting import SqlForgetting
from locas_storage.sql.maintenance.upkeep import SqlUpkeep
from locas_storage.sql.maintenance.verify import Verification
from locas_storage.sql.queue import SqlJobQueue
from locas_storage.sql.revisions import SqlRevisions
from locas_storage.sql.statements import audit, jobs, search_index, study_items, turns_postgresql, users
from locas_storage.sql.statements import turns as journal
from locas_storage.sql.statements.payloads import INLINE_BYTES, RetentionPolicy


def _no_fault(name: str) -> None:
    """Do nothing; a crash test puts a function here that ends the process at a named step."""


class SqlMemoryStore:
    """A `MemoryStore` in an SQL database. Constructing it opens nothing; the first use does, and makes the tables.

    Args:
        url: an SQLAlchemy URL of SQLite or PostgreSQL; `sqlite:///locas.db` is a file, `sqlite://` a database in
            memory. A `Path` is an SQLite file.
        keep_payloads: how many different payloads of a user are kept, the newest, beside the last one of each line;
            other revisions are pruned.
        files: where payloads larger than `inline_bytes` go, a folder or any place fsspec can write to; all stores on
            one database name the same place. Without it every payload lies in the database. Needs the extra `files`.
        inline_bytes: largest payload that lies in the database although there are files.
        key_provider: with it turns, study items and payloads are kept encrypted, each user's under a data key of its
            own that the provider wraps; content in the clear is then refused, as without it encrypted content is. Needs
            the extra `encryption`.
        fault_point: called with the name of each step of a change.

    Attributes:
        queue: the jobs.
        database: the connections, for maintenance by hand and for tests; rows read there are not checked.
        data_keys: the users' data keys.

    Raises:
        StoreUnavailable: not a URL, or its driver, fsspec or what that needs, or cryptography is not installed.
        InvalidRevision: `keep_payloads` is less than 1.
    """

    def __init__(
        self,
        url: str | Path,
        *,
        keep_payloads: int = commit.KEEP_PAYLOADS,
        files: str | None = None,
        inline_bytes: int = INLINE_BYTES,
        key_provider: KeyProvider | None = None,
        fault_point: Callable[[str], None] = _no_fault,
    ) -> None:
        commit.check_keep(keep_payloads)
        self.database = Database(url)
        retention = RetentionPolicy(keep_payloads, PayloadFiles(files) if files is not None else None, inline_bytes)
        self.data_keys = DataKeys(key_provider)
        self._fault_point = fault_point
        self._is_ready = False
        self.queue = SqlJobQueue(self._read, self._write, fault_point)
        self.api_keys = SqlApiKeys(self._read, self._write)
        self._upkeep = SqlUpkeep(
            self._read,
            self._write,
            data_keys=self.data_keys,
            retention=retention,
            rewrite=self.database.rewrite,
            fault_point=fault_point,
        )
        self._revisions = SqlRevisions(
            self._read,
            self._write,
            data_keys=self.data_keys,
            retention=retention,
            upkeep=self._upkeep,
            fault_point=fault_point,
        )
        self._forgetting = SqlForgetting(
            self._read,
            self._write,
            overwrite=self.database.overwrite_log,
            check_reach=self._upkeep.check_reach,
            remove_files=self._upkeep.remove_files,
            fault_point=fault_point,
        )

    def __repr__(self) -> str:
        return f"SqlMemoryStore({self.database.name!r})"

    def append(self, key: UserKey, drafts: Sequence[TurnDraft], *, enqueue: int | None = None) -> list[Turn]:
        """See `MemoryStore.append`."""
        if not drafts:
            return []
        with self._write() as connection:
            answered = turns_postgresql.append(connection, key, drafts) if not self.data_keys.has_keys else None
            self._fault_point("append.user")
            if answered is None:
                answered = self._append_in_turn(connection, key, drafts)
            self._fault_point("append.turns")
            if enqueue is not None:
                jobs.enqueue(connection, users.locked(connection, key), enqueue)
            self._fault_point("append.before_commit")
        self._fault_point("append.after_commit")
        return answered

    def _append_in_turn(self, connection: Connection, key: UserKey, drafts: Sequence[TurnDraft]) -> list[Turn]:
        user = users.reserve(connection, key, len(drafts))
        cipher = self.data_keys.cipher_for_append(connection, user)
        answered, added = journal.append(connection, key, drafts, cipher, next_seq=user.first, now=user.now)
        users.give_back(connection, key, len(drafts) - added)
        return answered

    def turns(self, key: UserKey, *, after: int = 0, upto: int | None = None, newest: int | None = None) -> list[Turn]:
        """See `MemoryStore.turns`."""
        commit.check_newest(newest)
        with self._read() as connection:
            return journal.turns(
                connection, key, self.data_keys.cipher(connection, key), after=after, upto=upto, newest=newest
            )

    def known(self, key: UserKey, idem_keys: Iterable[str]) -> list[Turn]:
        """See `MemoryStore.known`."""
        possible = commit.possible_keys(idem_keys)
        if not possible:
            return []
        with self._read() as connection:
            return sorted(
                journal.known(connection, key, possible, self.data_keys.cipher(connection, key)),
                key=lambda one: one.seq,
            )

    def search(self, key: UserKey, text: str, *, limit: int = 10) -> list[FoundTurn]:
        """See `MemoryStore.search`."""
        check_query(text, limit)
        wanted = ranking.query_words(text)
        if not wanted:
            return []
        with self._read() as connection:
            found = self._found(connection, key, wanted, limit)
        if found is None:
            with self._write() as connection:
                if users.locked_if_there(connection, key, skip_locked=False) is not None:
                    search_index.catch_up(connection, key, self.data_keys.cipher(connection, key))
                found = self._found(connection, key, wanted, limit)
        return found or []

    def _found(self, connection: Connection, key: UserKey, wanted: Sequence[str], limit: int) -> list[FoundTurn] | None:
        """Return the best of the user's turns that share a word.

        None where the index waits for what was said since the last search.
        """
        state = users.state(connection, key)
        cipher = self.data_keys.cipher(connection, key)
        if cipher.is_encrypting:  # an index would tell what was said
            found = ranking.sharing(journal.turns(connection, key, cipher), wanted)
        elif search_index.is_behind(connection, key):
            return None
        else:
            found = search_index.candidates(connection, key, wanted, cipher)
        return ranking.rank(wanted, found, turns=state.turns, limit=limit) if state else []

    def state(self, key: UserKey) -> UserState | None:
        """See `MemoryStore.state`."""
        with self._read() as connection:
            return users.state(connection, key)

    def users(self, tenant: str | None = None) -> list[UserKey]:
        """See `MemoryStore.users`."""
        commit.check_tenant(tenant)
        with self._read() as connection:
            return users.users(connection, tenant)

    def study_items(self, key: UserKey, *, with_retired: bool = False) -> list[StudyItem]:
        """See `MemoryStore.study_items`."""
        with self._read() as connection:
            return study_items.all_of(
                connection, key, self.data_keys.cipher(connection, key), with_retired=with_retired
            )

    def commit(self, key: UserKey, draft: RevisionDraft, *, lease: Lease | None = None) -> Revision:
        """See `MemoryStore.commit`."""
        return self._revisions.commit(key, draft, lease)

    def revisions(self, key: UserKey) -> list[Revision]:
        """See `MemoryStore.revisions`."""
        return self._revisions.all_of(key)

    def revision(self, key: UserKey, number: int | None = None) -> Revision | None:
        """See `MemoryStore.revision`."""
        return self._revisions.one(key, number)

    def payload(self, key: UserKey, number: int) -> bytes:
        """See `MemoryStore.payload`."""
        return self._revisions.payload(key, number)

    def rollback(self, key: UserKey, number: int) -> Revision:
        """See `MemoryStore.rollback`."""
        return self._revisions.rollback(key, number)

    def cut_over(self, key: UserKey, drafts: Sequence[RevisionDraft], *, fingerprint: str, fence: int) -> Revision:
        """See `MemoryStore.cut_over`."""
        return self._revisions.cut_over(key, drafts, fingerprint=fingerprint, fence=fence)

    def forget(self, key: UserKey, turns: Iterable[int]) -> Receipt:
        """See `MemoryStore.forget`."""
        return self._forgetting.forget(key, turns)

    def correct(self, key: UserKey, turn: int, draft: TurnDraft) -> CorrectedTurn:
        """See `MemoryStore.correct`."""
        return self._forgetting.correct(key, turn, draft, append=self._append_in_turn)

    def erase(self, key: UserKey) -> Receipt:
        """See `MemoryStore.erase`."""
        made = self._forgetting.erase(key)
        self.data_keys.forget(key)
        return made

    def reinstate(self, key: UserKey) -> None:
        """See `MemoryStore.reinstate`."""
        self._forgetting.reinstate(key)

    def expire(self, key: UserKey | None = None) -> dict[UserKey, Receipt]:
        """See `MemoryStore.expire`."""
        return self._forgetting.expire(key)

    def record(self, key: UserKey, action: str, facts: Mapping[str, Any]) -> None:
        """See `MemoryStore.record`."""
        known = commit.check_action(action)
        plain = plain_json("facts", facts)
        with self._write() as connection:
            users.locked(connection, key)
            audit.record(connection, key, known, plain)

    def audit(self, key: UserKey) -> list[AuditEntry]:
        """See `MemoryStore.audit`."""
        with self._read() as connection:
            entries = audit.lines(connection, key)
        commit.check_audit(key, entries)
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
        return self._upkeep.verify(tenant=tenant, user=user)

    def rotate_keys(self) -> int:
        """Wrap every user's data key under the key provider's current key, and return how many were under another.

        Content stays as it is.

        Raises:
            EncryptionMismatch: the store was opened without `key_provider`.
            KeyUnavailable: a data key cannot be unwrapped or wrapped; those done before stay done.
        """
        return self._upkeep.rotate_keys()

    def encrypt(self) -> Conversion:
        """Encrypt the content of every user that is kept in the clear, and leave no clear byte of it behind.

        Each user is one transaction: turns, study items, payloads, and the digests over them. Called again after an
        interruption it goes on with the users that are left. Have no store without keys at work on the database
        meanwhile: it is refused from then on.

        Raises:
            EncryptionMismatch: the store was opened without `key_provider`.
            KeyUnavailable: a data key cannot be wrapped; the users done before stay done.
            CorruptPayload: something of a user does not hold, see `verify`; the users done before stay done.
        """
        return self._upkeep.encrypt()

    def close(self) -> None:
        """Close the connections. Using the store again opens new ones; a database in memory is then empty."""
        with self.database.opening:
            self.database.close()
            self._is_ready = False

    def collect(self, *, grace_seconds: float = 3600.0) -> int:
        """Delete the files that no row names, which a crash may leave, and return how many those were.

        Args:
            grace_seconds: leave younger files alone, since a commit writes the file before the row.
        """
        return self._upkeep.collect(grace_seconds=grace_seconds)

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        self._open()
        with self.database.read() as connection:
            yield connection

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        self._open()
        with self.database.write() as connection:
            yield connection

    def _open(self) -> None:
        if self._is_ready:
            return
        with self.database.opening:
            if not self._is_ready:
                version.prepare(self.database)
                self._is_ready = True


def open_store(
    url: str | Path,
    *,
    keep_payloads: int = commit.KEEP_PAYLOADS,
    files: str | None = None,
    inline_bytes: int = INLINE_BYTES,
    key_provider: KeyProvider | None = None,
) -> SqlMemoryStore:
    """Return the store at a SQLAlchemy URL or in a file, such as `sqlite:///locas.db`.

    Nothing is opened before its first use.

    Args:
        url: of an SQLite or PostgreSQL database; a `Path` is an SQLite file.
        keep_payloads: see `SqlMemoryStore`, as for the others.
        files: where large payloads go.
        inline_bytes: largest payload in the database.
        key_provider: wraps data keys.
    """
    return SqlMemoryStore(
        url, keep_payloads=keep_payloads, files=files, inline_bytes=inline_bytes, key_provider=key_provider
    )
