"""Owns the statements over revisions.

Every function works within the caller's transaction.
"""

from sqlalchemy import Connection, insert, select

from locas_storage.records.bounds import MAX_INTEGER
from locas_storage.records.revisions import Revision, RevisionDraft
from locas_storage.records.turns import UserKey
from locas_storage.rules import commit
from locas_storage.sql.statements.payloads import StagedPayload
from locas_storage.sql.tables import rows
from locas_storage.sql.tables.columns import DbNow
from locas_storage.sql.tables.schema import revision


def all_of(connection: Connection, key: UserKey) -> list[Revision]:
    """Return the user's revisions in ascending order."""
    return [
        rows.revision(row)
        for row in connection.execute(select(revision).where(rows.belongs_to(revision, key)).order_by(revision.c.rev))
    ]


def one(connection: Connection, key: UserKey, number: int) -> Revision:
    """Return one revision.

    Raises:
        RevisionNotFound: the user has no such revision.
    """
    row = None
    if 0 < number <= MAX_INTEGER:
        row = connection.execute(
            select(revision).where(rows.belongs_to(revision, key), revision.c.rev == number)
        ).one_or_none()
    if row is None:
        raise commit.not_found(key, number)
    return rows.revision(row)


def add(
    connection: Connection,
    key: UserKey,
    draft: RevisionDraft,
    *,
    number: int,
    fence: int,
    turns_sha256: str,
    kept: StagedPayload,
) -> None:
    """Add a trained revision of a locked user."""
    values = rows.revision_values(
        key, draft, number=number, turns_sha256=turns_sha256, blob_sha256=kept.sha256, payload_sha256=kept.digest
    )
    connection.execute(insert(revision).values(values | {"fence": fence, "created_at": DbNow()}))


def add_restored(connection: Connection, key: UserKey, made: Revision, *, fence: int) -> None:
    """Add a revision of a locked user that brings an older one back."""
    source = select(revision.c.blob_sha256).where(rows.belongs_to(revision, key), revision.c.rev == made.restores)
    values = rows.restored_values(key, made, blob_sha256=connection.scalar(source))
    connection.execute(insert(revision).values(values | {"fence": fence}))
