"""Owns the statements over the audit trail.

Every function works within the caller's transaction.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, insert, select

from locas_storage.records.turns import AuditAction, AuditEntry, UserKey
from locas_storage.rules import commit
from locas_storage.sql.tables import rows
from locas_storage.sql.tables.columns import DbNow
from locas_storage.sql.tables.schema import audit


def record(
    connection: Connection, key: UserKey, action: AuditAction, facts: Mapping[str, Any]
) -> tuple[AuditEntry, str]:
    """Add a line to the audit trail of a locked user, and return it with its digest."""
    last = connection.execute(
        select(audit.c.seq, audit.c.sha256).where(rows.belongs_to(audit, key)).order_by(audit.c.seq.desc()).limit(1)
    ).one_or_none()
    seq, previous = (last.seq + 1, last.sha256) if last else (1, commit.FIRST_PREVIOUS)
    entry = AuditEntry(seq, action, facts, connection.scalars(select(DbNow())).one())
    hashes = {"previous_sha256": previous, "sha256": commit.audit_digest(key, previous, entry)}
    values = {"seq": seq, "action": action, "facts": dict(facts), "created_at": entry.created_at}
    connection.execute(insert(audit).values(rows.key_columns(key) | values | hashes))
    return entry, hashes["sha256"]


def lines(connection: Connection, key: UserKey) -> list[tuple[AuditEntry, str]]:
    """Return the audit trail in ascending order, each line with its digest."""
    found = connection.execute(select(audit).where(rows.belongs_to(audit, key)).order_by(audit.c.seq)).all()
    return [(rows.audit_entry(row), row.sha256) for row in found]
