"""Owns `SqlUpkeep`: what an operator has done to an SQL database: checking it, its keys, its encryption, its files."""

import datetime as dt
import logging
from collections.abc import Callable, Iterable, Sequence

from sqlalchemy import select

from locas_storage.encryption.envelope import CLEAR
from locas_storage.errors import CorruptPayload, StoreUnavailable
from locas_storage.records.receipts import Conversion
from locas_storage.records.turns import UserKey
from locas_storage.sql.data_keys import DataKeys
from locas_storage.sql.maintenance import checks, encrypt, verify
from locas_storage.sql.maintenance.verify import Verification
from locas_storage.sql.queue import Transaction
from locas_storage.sql.statements import payloads, search_index
from locas_storage.sql.statements import users as counters
from locas_storage.sql.statements.payloads import RetentionPolicy
from locas_storage.sql.tables.schema import blob, revision, search, study_item, subject, turn

logger = logging.getLogger(__name__)

_WITH_CONTENT = (turn, search, blob, study_item, revision)
"""Tables in which something of clear content may be left once it is encrypted."""


class SqlUpkeep:
    """What keeps a database in order.

    Args:
        read: begins a transaction that reads.
        write: begins one that writes.
        data_keys: the users' data keys.
        retention: where payloads lie.
        rewrite: writes tables again, tells whether no old byte of them is left.
        fault_point: called with the name of each step of a change.
    """

    def __init__(
        self,
        read: Transaction,
        write: Transaction,
        *,
        data_keys: DataKeys,
        retention: RetentionPolicy,
        rewrite: Callable[[Iterable[str]], bool],
        fault_point: Callable[[str], None],
    ) -> None:
        self._read = read
        self._write = write
        self._data_keys = data_keys
        self._retention = retention
        self._files = retention.files
        self._rewrite = rewrite
        self._fault_point = fault_point

    def verify(self, *, tenant: str | None = None, user: str | None = None) -> Verification:
        """See `SqlMemoryStore.verify`."""
        return verify.verify(self._read, self._data_keys.cipher, self._files, tenant=tenant, user=user)

    def rotate_keys(self) -> int:
        """See `SqlMemoryStore.rotate_keys`."""
        changed = 0
        for key in self._users():
            with self._write() as connection:
                changed += self._data_keys.rewrap(connection, key)
        return changed

    def encrypt(self) -> Conversion:
        """See `SqlMemoryStore.encrypt`."""
        self._data_keys.require_keys()
        changed = 0
        while more := sum([self._encrypt(key) for key in self._clear_users()]):  # until nobody new came meanwhile
            changed += more
        with self._write() as connection:
            search_index.merge(connection)
        self.collect(grace_seconds=0.0)  # a crash between a user's rows and files leaves clear files
        return Conversion(changed, self._rewrite(sorted(table.name for table in _WITH_CONTENT)))

    def collect(self, *, grace_seconds: float) -> int:
        """See `SqlMemoryStore.collect`."""
        if self._files is None:
            return 0
        users = {key.digest: key for key in self._users()}
        old: dict[str, list[str]] = {}
        for owner, name in self._files.older_than(dt.datetime.now(dt.UTC) - dt.timedelta(seconds=grace_seconds)):
            old.setdefault(owner, []).append(name)
        removed = 0
        for owner, names in old.items():
            if owner in users:
                removed += self.remove_files(users[owner], names)
            else:
                for name in names:
                    self._files.remove(owner, name)
                removed += len(names)
        return removed

    def check_reach(self, digests: Sequence[str]) -> None:
        """Refuse to give up payloads in files by a store that was not told where these are: they would stay.

        Raises:
            StoreUnavailable: there are such payloads.
        """
        if digests and self._files is None:
            raise StoreUnavailable(
                f"{len(digests)} payloads lie in files, which would stay, and nothing was changed; open the store with "
                "files= naming where it "
                "keeps them, on the command line with --files"
            )

    def remove_files(self, key: UserKey, digests: Sequence[str]) -> int:
        """Delete those files of a user that no row names, and return how many those were."""
        if not digests or self._files is None:
            return 0
        with self._write() as connection:
            counters.locked_tombstone(connection, key)  # a caller that brings such a file back has to wait
            unnamed = payloads.without_row(connection, key, digests)
            for digest in unnamed:
                self._files.remove(key.digest, digest)
        return len(unnamed)

    def _users(self) -> list[UserKey]:
        with self._read() as connection:
            return counters.users(connection, None)

    def _clear_users(self) -> list[UserKey]:
        query = select(subject.c.tenant_id, subject.c.subject_id).where(
            subject.c.wrapped_dek.is_(None), subject.c.erased_at.is_(None)
        )
        with self._read() as connection:
            return [UserKey(*names) for names in connection.execute(query)]

    def _encrypt(self, key: UserKey) -> bool:
        with self._write() as connection:
            state = counters.locked_if_there(connection, key, skip_locked=False)
            snapshot = checks.open_snapshot(connection, key, CLEAR, self._files)
            if state is None or state.is_encrypted or snapshot is None:  # another did it meanwhile
                return False
            found = [finding for check in checks.CHECKS for finding in checks.run(check, snapshot)]
            if found:
                what, detail = found[0]
                raise CorruptPayload(
                    f"user #{key.short_hash}: {len(found)} faults, the first is {what}: {detail}; this user stays in "
                    "the clear and those before "
                    "are encrypted; `locas-agent verify` names all faults"
                )
            cipher = self._data_keys.give_key(connection, key)
            gone = encrypt.encrypt(connection, key, CLEAR, cipher, self._retention)
            self._fault_point("encrypt.before_commit")
        self._fault_point("encrypt.after_commit")
        self.remove_files(key, gone)
        logger.info("encrypted", extra={"action": "encrypt", "user": key.short_hash, "turns": state.turns})
        return True
