"""Owns the way between rows and records, and the one condition that binds a row to its user."""

import hashlib
from typing import Any

from sqlalchemy import ColumnElement, Row, Table, and_, bindparam, or_

from locas_storage.encryption import envelope
from locas_storage.encryption.envelope import Cipher
from locas_storage.errors import CorruptPayload
from locas_storage.records.metrics import ConsolidationMetrics
from locas_storage.records.revisions import Revision, RevisionDraft, StudyItem, StudyItemDraft
from locas_storage.records.turns import AuditEntry, Turn, UserKey, UserState
from locas_storage.sql.tables import schema
from locas_storage.sql.tables.columns import DbNow

Values = dict[str, Any]

NOTHING_SHA256 = hashlib.sha256(b"").digest()
"""Digest of what is left of a forgotten turn."""


def belongs_to(table: Table, key: UserKey) -> ColumnElement[bool]:
    """Return the condition that a row belongs to this user; every statement about a user goes through it."""
    return and_(table.c.tenant_id == key.tenant, table.c.subject_id == key.user)


def belongs_to_param(table: Table) -> ColumnElement[bool]:
    """Return the same condition with the user left open, for a statement built once and executed with `whose(key)`.

    Building an expression takes longer than executing it, which an append, alone among all calls, is frequent enough to
    feel.
    """
    return and_(table.c.tenant_id == bindparam("of_tenant"), table.c.subject_id == bindparam("of_subject"))


def key_params(key: UserKey) -> Values:
    """Return the parameters that `belongs_to_param` leaves open."""
    return {"of_tenant": key.tenant, "of_subject": key.user}


def shown() -> ColumnElement[bool]:
    """Return the condition that a turn may be read: neither forgotten nor due to be."""
    turn = schema.turn
    return and_(turn.c.forgotten_at.is_(None), or_(turn.c.expires_at.is_(None), turn.c.expires_at > DbNow()))


def key_columns(key: UserKey) -> Values:
    """Return the columns that say whose a new row is."""
    return {"tenant_id": key.tenant, "subject_id": key.user}


def turn_values(key: UserKey, turn: Turn, cipher: Cipher) -> Values:
    """Return a turn as a row."""
    content, place = turn.content.encode(), envelope.turn_place(turn.seq)
    return key_columns(key) | {
        "seq": turn.seq,
        "idem_key": turn.idempotency_key,
        "role": turn.role,
        "content": cipher.encrypt(place, content),
        "content_sha256": cipher.digest(place, content),
        "name": turn.name,
        "session_id": turn.session,
        "said_at": turn.at,
        "said_offset": turn.offset_seconds,
        "token_count": turn.token_count,
        "trust": turn.trust,
        "learn": turn.learn,
        "created_at": turn.created_at,
        "expires_at": turn.expires_at,
    }


def turn(row: Row[Any], cipher: Cipher) -> Turn:
    """Return a row as a turn.

    Raises:
        CorruptPayload: the text differs from its digest, or was encrypted as another turn's.
        EncryptionMismatch: it is clear and should be encrypted, or the other way round.
    """
    place = envelope.turn_place(row.seq)
    is_forgotten = row.forgotten_at is not None
    # Of a forgotten turn nothing is left to open; its row says the same in every store.
    content = bytes(row.content) if is_forgotten else cipher.decrypt(place, bytes(row.content))
    digest = NOTHING_SHA256 if is_forgotten else cipher.digest(place, content)
    if digest != row.content_sha256 or (is_forgotten and content):
        raise CorruptPayload(
            f"turn {row.seq}: text differs from the digest saved with it; restore the database from a backup"
        )
    return Turn(
        seq=row.seq,
        idempotency_key=row.idem_key,
        role=row.role,
        content=content.decode(),
        name=row.name,
        session=row.session_id,
        at=row.said_at,
        trust=row.trust,
        token_count=row.token_count,
        created_at=row.created_at,
        expires_at=row.expires_at,
        is_forgotten=is_forgotten,
        offset_seconds=row.said_offset,
        learn=row.learn,
    )


def state(row: Row[Any]) -> UserState:
    """Return a row of `lm_subject` as a user's counters."""
    return UserState(
        key=UserKey(row.tenant_id, row.subject_id),
        next_seq=row.next_seq,
        head=row.head_rev,
        consolidated_seq=row.consolidated_seq,
        fence=row.fence,
        epoch=row.epoch,
        created_at=row.created_at,
        is_encrypted=row.wrapped_dek is not None,
    )


def revision_values(
    key: UserKey, draft: RevisionDraft, *, number: int, turns_sha256: str, blob_sha256: str, payload_sha256: str
) -> Values:
    """Return a draft as a row."""
    return key_columns(key) | {
        "rev": number,
        "parent_rev": draft.parent,
        "restores": None,
        "base_fingerprint": draft.fingerprint,
        "config_hash": draft.config_hash,
        "code_version": draft.code_version,
        "seed": draft.seed,
        "from_seq": draft.from_seq,
        "to_seq": draft.to_seq,
        "turns_sha256": turns_sha256,
        "blob_sha256": blob_sha256,
        "payload_sha256": payload_sha256,
        "payload_bytes": len(draft.payload),
        "metrics": draft.metrics.as_json(),
    }


def restored_values(key: UserKey, made: Revision, *, blob_sha256: str | None) -> Values:
    """Return a revision that brings an older one back as a row."""
    return key_columns(key) | {
        "rev": made.number,
        "parent_rev": made.parent,
        "restores": made.restores,
        "base_fingerprint": made.fingerprint,
        "config_hash": made.config_hash,
        "code_version": made.code_version,
        "seed": made.seed,
        "from_seq": made.from_seq,
        "to_seq": made.to_seq,
        "turns_sha256": made.turns_sha256,
        "blob_sha256": blob_sha256,
        "payload_sha256": made.payload_sha256,
        "payload_bytes": made.payload_bytes or None,
        "metrics": made.metrics.as_json(),
        "created_at": made.created_at,
    }


def revision(row: Row[Any]) -> Revision:
    """Return a row as a revision."""
    return Revision(
        number=row.rev,
        parent=row.parent_rev,
        restores=row.restores,
        fingerprint=row.base_fingerprint,
        config_hash=row.config_hash,
        code_version=row.code_version,
        seed=row.seed,
        from_seq=row.from_seq,
        to_seq=row.to_seq,
        turns_sha256=row.turns_sha256,
        payload_sha256=row.payload_sha256,
        payload_bytes=row.payload_bytes or 0,
        metrics=ConsolidationMetrics.stored(row.metrics),
        state=row.state,
        created_at=row.created_at,
    )


def item_values(key: UserKey, draft: StudyItemDraft, cipher: Cipher, *, number: int, position: int) -> Values:
    """Return a study item as a row."""
    return key_columns(key) | {
        "item_id": draft.item_id,
        "kind": draft.kind,
        "from_seq": draft.from_seq,
        "to_seq": draft.to_seq,
        "turn_seq": draft.turn_seq,
        "question": cipher.encrypt(envelope.item_place(draft.item_id, "question"), draft.question.encode()),
        "answer": cipher.encrypt(envelope.item_place(draft.item_id, "answer"), draft.answer.encode()),
        "teacher": cipher.encrypt(envelope.item_place(draft.item_id, "teacher"), draft.teacher),
        "added_rev": number,
        "position": position,
    }


def item(row: Row[Any], cipher: Cipher) -> StudyItem:
    """Return a row as a study item.

    Raises:
        CorruptPayload: a field was altered, or encrypted as another's.
        EncryptionMismatch: it is clear and should be encrypted, or the other way round.
    """
    return StudyItem(
        item_id=row.item_id,
        kind=row.kind,
        from_seq=row.from_seq,
        to_seq=row.to_seq,
        turn_seq=row.turn_seq,
        question=cipher.decrypt(envelope.item_place(row.item_id, "question"), bytes(row.question)).decode(),
        answer=cipher.decrypt(envelope.item_place(row.item_id, "answer"), bytes(row.answer)).decode(),
        teacher=cipher.decrypt(envelope.item_place(row.item_id, "teacher"), bytes(row.teacher)),
        added_rev=row.added_rev,
        retired_rev=row.retired_rev,
    )


def audit_entry(row: Row[Any]) -> AuditEntry:
    """Return a row as a line of the audit trail."""
    return AuditEntry(seq=row.seq, action=row.action, facts=row.facts, created_at=row.created_at)
