"""Owns `Verification`: which users are checked, and what was found."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from sqlalchemy import Connection, exists, select

from locas_storage.encryption.envelope import Cipher, Plaintext
from locas_storage.errors import InvalidTurn, StorageError
from locas_storage.payload_files import PayloadFiles
from locas_storage.records.turns import UserKey
from locas_storage.rules import commit
from locas_storage.sql.maintenance import checks
from locas_storage.sql.tables.schema import audit, blob, job, revision, search, study_event, study_item, subject, turn

_CHILDREN = (turn, search, blob, revision, study_item, study_event, job, audit)


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that does not hold.

    Attributes:
        key: of whom; None for the database as a whole.
        what: one word: 'journal', 'digest', 'chain', 'spans', 'fence', 'head', 'payload', 'study', 'job', 'audit',
            'index', 'forgotten', 'erased', 'owner', 'encryption' or 'file'.
        detail: numbers and digests, never content.
    """

    key: UserKey | None
    what: str
    detail: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What a check of a database looked at and what it found.

    Attributes:
        users: how many users were checked, erased ones included.
        turns: how many turns they have.
        revisions: how many revisions.
        faults: what does not hold, none if all is well.
    """

    users: int
    turns: int
    revisions: int
    faults: tuple[Fault, ...] = field(default=())

    @property
    def is_sound(self) -> bool:
        """True when nothing was found."""
        return not self.faults


def verify(
    read: Callable[[], AbstractContextManager[Connection]],
    cipher: Callable[[Connection, UserKey], Cipher],
    files: PayloadFiles | None,
    *,
    tenant: str | None,
    user: str | None,
) -> Verification:
    """Check one user, a tenant's or all; each user in a transaction of its own, so that writers go on meanwhile.

    A user with a fault is looked at twice and the second look counts: a file may be removed between its row and it.

    Args:
        read: begins a transaction that sees one state.
        cipher: returns how a user's content is kept.
        files: where large payloads lie.
        tenant: only this tenant's users.
        user: only this one, of the tenant.

    Raises:
        InvalidTurn: a user is given and no tenant.
    """
    commit.check_tenant(tenant)
    if user is not None and tenant is None:
        raise InvalidTurn("verify: a user was given without a tenant; give both")
    faults: list[Fault] = []
    with read() as connection:
        if user is not None and tenant is not None:
            keys = [UserKey(tenant, user)]
        else:
            keys, unnamed = _everyone(connection, tenant)
            faults += unnamed
        if tenant is None:
            faults += _whole(connection)
    turns = revisions = 0
    for key in keys:
        found, counts = _user(read, cipher, files, key)
        if found:
            found, counts = _user(read, cipher, files, key)
        faults += found
        turns, revisions = turns + counts[0], revisions + counts[1]
    return Verification(len(keys), turns, revisions, tuple(faults))


def _user(
    read: Callable[[], AbstractContextManager[Connection]],
    cipher: Callable[[Connection, UserKey], Cipher],
    files: PayloadFiles | None,
    key: UserKey,
) -> tuple[list[Fault], tuple[int, int]]:
    faults: list[Fault] = []
    with read() as connection:
        try:
            how = cipher(connection, key)
        except StorageError as error:
            faults.append(Fault(key, "encryption", str(error)))
            how = None
        snapshot = checks.open_snapshot(connection, key, how or Plaintext(), files)
        if snapshot is None:
            return [Fault(key, "owner", "there is no such user")], (0, 0)
        wanted = checks.CHECKS if snapshot.user.erased_at is None else (checks.tombstone,)
        if how is None:  # what needs no key
            wanted = (checks.chain, checks.head, checks.queue, checks.audit)
        for check in wanted:
            faults += [Fault(key, what, detail) for what, detail in checks.run(check, snapshot)]
    return faults, (len(snapshot.digests), len(snapshot.chain))


def _everyone(connection: Connection, tenant: str | None) -> tuple[list[UserKey], list[Fault]]:
    """Return all users, erased ones included, and what has a name that no user can have."""
    query = select(subject.c.tenant_id, subject.c.subject_id)
    if tenant is not None:
        query = query.where(subject.c.tenant_id == tenant)
    keys, faults = [], []
    for names in sorted(tuple(row) for row in connection.execute(query)):
        try:
            keys.append(UserKey(*names))
        except InvalidTurn:
            faults.append(Fault(None, "owner", "a user's row has a name that no user can have"))
    return keys, faults


def _whole(connection: Connection) -> Iterator[Fault]:
    """Every row belongs to a user there is; on SQLite the file is whole."""
    for table in _CHILDREN:
        of_somebody = exists().where(
            subject.c.tenant_id == table.c.tenant_id, subject.c.subject_id == table.c.subject_id
        )
        lost = len(connection.execute(select(table.c.tenant_id).where(~of_somebody)).all())
        if lost:
            yield Fault(None, "owner", f"{lost} rows of {table.name} belong to nobody")
    if connection.dialect.name == "sqlite":
        broken = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA quick_check") if row[0] != "ok"]
        if broken:
            yield Fault(None, "file", f"SQLite finds {len(broken)} faults in the file; run PRAGMA integrity_check")
