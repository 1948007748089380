"""Owns the bytes of revisions: keeping them under their own digest, reading them back checked, giving up the old ones.

Every function but `stage` works within the caller's transaction.

Small payloads lie in the database, so that one transaction holds a whole consolidation and one backup holds everything.
Larger ones lie in files if the store was given a place for them: first the file, then the row that names it. So a row
never lacks its file, and a crash leaves at most a file without a row, which `SqlMemoryStore.collect` removes.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, delete, insert, select, update

from locas_storage.encryption import envelope
from locas_storage.encryption.envelope import Cipher
from locas_storage.errors import CorruptPayload, StoreUnavailable
from locas_storage.payload_files import PayloadFiles
from locas_storage.records.revisions import Revision
from locas_storage.records.turns import IMPORTED, UserKey
from locas_storage.rules import commit, lineage
from locas_storage.sql.tables import rows
from locas_storage.sql.tables.columns import DbNow
from locas_storage.sql.tables.schema import blob, revision, turn

INLINE_BYTES = 32 << 20
"""Largest payload that lies in the database unless a store is told otherwise: beyond it a file is read and written
faster."""
_ANY_PAYLOAD = ("payload",)
"""Place of a payload's digest: the same bytes of one user have the same digest, whichever revision made them."""


@dataclass(frozen=True, slots=True)
class StagedPayload:
    """A payload about to be named by a row.

    Attributes:
        digest: of the payload, keyed where it is encrypted.
        sha256: of the bytes that are kept, which are the payload's or a ciphertext.
        size: in bytes; a ciphertext is as long as what it encrypts.
        header: what opens a ciphertext, beside the key; None where nothing is encrypted.
        data: the bytes that are kept, None if they lie in a file already.
    """

    digest: str
    sha256: str
    size: int
    header: bytes | None = field(repr=False)
    data: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """How a store keeps payloads.

    Attributes:
        most: how many different ones of a user, the newest.
        files: where the large ones lie, None if all lie in the database.
        inline_bytes: largest one that lies in the database although there are files.
    """

    most: int
    files: PayloadFiles | None
    inline_bytes: int


def stage(
    payload: bytes, number: int, fingerprint: str, key: UserKey, cipher: Cipher, retention: RetentionPolicy
) -> StagedPayload:
    """Return the payload of revision `number` ready to be kept.

    One too large for the database is written to its file first.
    """
    digest = cipher.digest(_ANY_PAYLOAD, payload).hex()
    header, kept = cipher.encrypt_apart(envelope.payload_place(number, fingerprint, digest), payload)
    sha256 = digest if header is None else hashlib.sha256(kept).hexdigest()
    if retention.files is None or len(kept) <= retention.inline_bytes:
        return StagedPayload(digest, sha256, len(kept), header, kept)
    retention.files.put(key, sha256, kept)
    return StagedPayload(digest, sha256, len(kept), header, None)


def keep(connection: Connection, key: UserKey, staged: StagedPayload, files: PayloadFiles | None) -> None:
    """Keep a payload of a locked user; the same bytes are kept once.

    Raises:
        StoreUnavailable: its file was removed meanwhile, which only a store that prunes the same bytes does.
    """
    known = select(blob.c.sha256).where(rows.belongs_to(blob, key), blob.c.sha256 == staged.sha256)
    if connection.scalar(known) is not None:
        return
    # Files of a user are removed under the lock that is held now: one that is there stays.
    if staged.data is None and (files is None or not files.exists(key, staged.sha256)):
        raise StoreUnavailable("the payload's file was removed before its row was written; commit again")
    values = {
        "sha256": staged.sha256,
        "size": staged.size,
        "store": "db" if staged.data is not None else "fs",
        "data": staged.data,
    }
    connection.execute(
        insert(blob).values(rows.key_columns(key) | values | {"enc_header": staged.header, "created_at": DbNow()})
    )


def read(connection: Connection, key: UserKey, saved: Revision, files: PayloadFiles | None, cipher: Cipher) -> bytes:
    """Return a revision's bytes after checking their size and digest.

    Raises:
        RevisionNotFound: it stands for no memory, or its payload is no longer kept.
        CorruptPayload: the bytes are not the ones that were saved, or were encrypted as another revision's.
        EncryptionMismatch: they are clear and should be encrypted, or the other way round.
        StoreUnavailable: they lie in a file, and the store was not told where files are.
    """
    if saved.payload_sha256 is None or not saved.is_kept:
        raise commit.no_payload(key, saved.number)
    what = f"payload of revision {saved.number}"
    named = (
        select(revision.c.blob_sha256)
        .where(rows.belongs_to(revision, key), revision.c.rev == saved.number)
        .scalar_subquery()
    )
    row = connection.execute(select(blob).where(rows.belongs_to(blob, key), blob.c.sha256 == named)).one_or_none()
    if row is None:
        raise CorruptPayload(f"{what}: there is no row with its bytes; restore the database from a backup")
    if row.store == "db":
        kept = bytes(row.data or b"")
    elif files is None:
        raise StoreUnavailable(f"{what} lies in a file; open the store with files= naming where it keeps them")
    else:
        kept = files.read(key, row.sha256)
    commit.checked(what, kept, size=saved.payload_bytes, sha256=row.sha256)
    place = envelope.payload_place(_maker(connection, key, saved), saved.fingerprint, saved.payload_sha256)
    data = cipher.decrypt_apart(place, row.enc_header, kept)
    if row.enc_header is None and row.sha256 != saved.payload_sha256:  # of a ciphertext the digest is part of its place
        raise CorruptPayload(f"{what}: differs from the digest saved with it; restore the database from a backup")
    return data


def _maker(connection: Connection, key: UserKey, saved: Revision) -> int:
    """Return the number of the revision that a restored one goes back to, which was trained."""
    number, restores = saved.number, saved.restores
    while restores is not None and 0 < restores < number:
        number = restores
        restores = connection.scalar(
            select(revision.c.restores).where(rows.belongs_to(revision, key), revision.c.rev == number)
        )
    return number


def prune(connection: Connection, key: UserKey, keep: int) -> list[str]:
    """Give up the payloads of a locked user beyond the newest `keep` different ones; return those whose files can go.

    Rows and digests stay, so that the chain of revisions can still be checked. An imported memory is kept as long as
    its turn is, and what each line of revisions ended with as long as its turns are.
    """
    named = (
        select(revision.c.blob_sha256)
        .where(rows.belongs_to(revision, key), revision.c.blob_sha256.is_not(None))
        .order_by(revision.c.rev.desc())
    )
    gone = commit.beyond_kept(connection.scalars(named), keep)
    if gone:
        gone -= _imported(connection, key) | _line_heads(connection, key)
    if not gone:
        return []
    pruned = update(revision).where(rows.belongs_to(revision, key), revision.c.blob_sha256.in_(gone))
    connection.execute(pruned.values(blob_sha256=None, state="pruned"))
    return drop_unused(connection, key)


def _imported(connection: Connection, key: UserKey) -> set[str]:
    """Return the payloads learnt from nothing but a turn that stands for a memory learnt elsewhere."""
    alone = (revision.c.from_seq == revision.c.to_seq) & (turn.c.seq == revision.c.to_seq) & (turn.c.trust == IMPORTED)
    named = select(revision.c.blob_sha256).where(
        rows.belongs_to(revision, key), rows.belongs_to(turn, key), alone, revision.c.blob_sha256.is_not(None)
    )
    return set(connection.scalars(named))


def _line_heads(connection: Connection, key: UserKey) -> set[str]:
    """Return the payload that each line of a user's revisions ended with."""
    counts = revision.c.blob_sha256.is_not(None) | revision.c.restores.is_not(None)
    rows_of = (
        select(revision.c.rev, revision.c.restores, revision.c.blob_sha256)
        .where(rows.belongs_to(revision, key), counts)
        .order_by(revision.c.rev)
    )
    return lineage.line_heads((row.rev, row.restores, row.blob_sha256) for row in connection.execute(rows_of))


def drop_unused(connection: Connection, key: UserKey) -> list[str]:
    """Delete the payloads of a locked user that no revision names any more; return those whose files can go."""
    named = select(revision.c.blob_sha256).where(rows.belongs_to(revision, key), revision.c.blob_sha256.is_not(None))
    unused = delete(blob).where(rows.belongs_to(blob, key), blob.c.sha256.not_in(named))
    return [
        row.sha256 for row in connection.execute(unused.returning(blob.c.sha256, blob.c.store)) if row.store == "fs"
    ]


def without_row(connection: Connection, key: UserKey, digests: Sequence[str]) -> list[str]:
    """Return those payloads of a locked user that no row names."""
    named = set(connection.scalars(select(blob.c.sha256).where(rows.belongs_to(blob, key), blob.c.store == "fs")))
    return [digest for digest in digests if digest not in named]
