"""Owns the way between rows and records, and the one condition that binds a row to its user.

Knows nothing of transactions.
"""

import hashlib
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, Table, and_, select

from locas_storage import schema
from locas_storage.errors import CorruptPayload
from locas_storage.records import AuditEntry, Revision, RevisionDraft, StudyItem, StudyItemDraft, Turn, UserKey, UserState

Values = dict[str, Any]


def of(table: Table, key: UserKey) -> ColumnElement[bool]:
    """Return the condition that a row belongs to this user; every statement about a user goes through it."""
    return and_(table.c.tenant_id == key.tenant, table.c.subject_id == key.user)


def owner(key: UserKey) -> Values:
    """Return the columns that say whose a new row is."""
    return {"tenant_id": key.tenant, "subject_id": key.user}


def turn_values(key: UserKey, turn: Turn) -> Values:
    """Return a turn as a row."""
    content = turn.content.encode()
    return owner(key) | {
        "seq": turn.seq,
        "idem_key": turn.key,
        "role": turn.role,
        "content": content,
        "content_sha256": hashlib.sha256(content).digest(),
        "name": turn.name,
        "session_id": turn.session,
        "said_at": turn.at,
        "token_count": turn.token_count,
        "trust": turn.trust,
        "created_at": turn.created_at,
    }


def turn(row: Row[Any]) -> Turn:
    """Return a row as a turn.

    Raises:
        CorruptPayload: the text differs from its digest.
    """
    if hashlib.sha256(row.content).digest() != row.content_sha256:
        raise CorruptPayload(f"turn {row.seq}: text differs from the digest saved with it; restore the database from a backup")
    return Turn(
        seq=row.seq,
        key=row.idem_key,
        role=row.role,
        content=bytes(row.content).decode(),
        name=row.name,
        session=row.session_id,
        at=row.said_at,
        trust=row.trust,
        token_count=row.token_count,
        created_at=row.created_at,
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
    )


def revision_values(key: UserKey, draft: RevisionDraft, *, number: int, turns_sha256: str, blob_sha256: str) -> Values:
    """Return a draft as a row."""
    return owner(key) | {
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
        "metrics": dict(draft.metrics),
    }


def restored_values(key: UserKey, made: Revision) -> Values:
    """Return a revision that brings an older one back as a row."""
    return owner(key) | {
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
        "blob_sha256": made.payload_sha256,
        "metrics": dict(made.metrics),
        "created_at": made.created_at,
    }


def select_revisions(key: UserKey) -> Select[Any]:
    """Return the query of a user's revisions with the sizes of their payloads, which leaves the payloads where they are."""
    revision, blob = schema.revision, schema.blob
    same = and_(of(blob, key), blob.c.sha256 == revision.c.blob_sha256)
    return select(revision, blob.c.size).select_from(revision.outerjoin(blob, same)).where(of(revision, key)).order_by(revision.c.rev)


def revision(row: Row[Any]) -> Revision:
    """Return a row of `select_revisions` as a revision."""
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
        payload_sha256=row.blob_sha256,
        payload_bytes=row.size or 0,
        metrics=row.metrics,
        state=row.state,
        created_at=row.created_at,
    )


def item_values(key: UserKey, draft: StudyItemDraft, *, number: int, position: int) -> Values:
    """Return a study item as a row."""
    return owner(key) | {
        "item_id": draft.item_id,
        "kind": draft.kind,
        "from_seq": draft.from_seq,
        "to_seq": draft.to_seq,
        "turn_seq": draft.turn_seq,
        "question": draft.question.encode(),
        "answer": draft.answer.encode(),
        "teacher": draft.teacher,
        "added_rev": number,
        "position": position,
    }


def item(row: Row[Any]) -> StudyItem:
    """Return a row as a study item."""
    return StudyItem(
        item_id=row.item_id,
        kind=row.kind,
        from_seq=row.from_seq,
        to_seq=row.to_seq,
        turn_seq=row.turn_seq,
        question=bytes(row.question).decode(),
        answer=bytes(row.answer).decode(),
        teacher=bytes(row.teacher),
        added_rev=row.added_rev,
        retired_rev=row.retired_rev,
    )


def audit_entry(row: Row[Any]) -> AuditEntry:
    """Return a row as a line of the audit trail."""
    return AuditEntry(seq=row.seq, action=row.action, facts=row.facts, created_at=row.created_at)
