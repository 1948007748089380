"""Owns the tables and their constraints.

What the tables hold to, whatever the code does:

- every key of a user's row begins with the tenant, and every foreign key carries it: a row of one tenant cannot point
  at another's;
- a blob belongs to one user, so that erasing the user erases the bytes and nobody learns that two users share some;
- a parent revision has at most one child in the chain, and the root's parent is 0, never NULL: a chain cannot fork;
- a user has at most one open job;
- times are microseconds since 1970 in UTC, taken from the database's clock.
"""

import datetime as dt

from sqlalchemy import (
    DDL,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    event,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import TSVECTOR

from locas_storage.records.bounds import MAX_PAYLOAD_BYTES, MAX_TURN_BYTES
from locas_storage.records.revisions import ITEM_KINDS
from locas_storage.records.turns import AUDIT_ACTIONS, ROLES
from locas_storage.sql.tables.columns import BigInt, Json, UtcMicros

VERSION_TABLE = "lm_alembic_version"
"""Our own, so that an application's alembic can share the database."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _owner() -> tuple[Column[str], Column[str]]:
    return Column("tenant_id", String(64), nullable=False), Column("subject_id", String(200), nullable=False)


def _key(*more: str) -> PrimaryKeyConstraint:
    return PrimaryKeyConstraint("tenant_id", "subject_id", *more)


def _to_subject() -> ForeignKeyConstraint:
    columns = ("tenant_id", "subject_id")
    return ForeignKeyConstraint(columns, [f"lm_subject.{column}" for column in columns], ondelete="CASCADE")


def _one_of(column: str, values: tuple[str, ...], name: str) -> CheckConstraint:
    # Words that no code writes any more stay in the rules of released tables: only a migration may take them out.
    return CheckConstraint(f"{column} IN ({', '.join(repr(value) for value in values)})", name=name)


def _created() -> Column[dt.datetime]:
    return Column("created_at", UtcMicros, nullable=False)


# One user of one tenant: the counters, the current revision, the fence. After erasure the row stays as a tombstone.
subject = Table(
    "lm_subject",
    metadata,
    *_owner(),
    Column("next_seq", BigInt, nullable=False, server_default="1"),
    Column("next_rev", BigInt, nullable=False, server_default="1"),
    Column("head_rev", BigInt, nullable=False, server_default="0"),
    Column("consolidated_seq", BigInt, nullable=False, server_default="0"),
    Column("fence", BigInt, nullable=False, server_default="0"),
    Column("epoch", BigInt, nullable=False, server_default="0"),
    Column("erased_at", UtcMicros),
    Column("wrapped_dek", LargeBinary),
    Column("kek_id", String(64)),
    _created(),
    _key(),
    CheckConstraint("consolidated_seq < next_seq", name="watermark"),
    CheckConstraint("head_rev >= 0 AND head_rev < next_rev", name="head"),
)

# One message of the journal. Consolidation never deletes it.
turn = Table(
    "lm_turn",
    metadata,
    *_owner(),
    Column("seq", BigInt, nullable=False, autoincrement=False),
    Column("idem_key", String(200), nullable=False),
    Column("role", String(16), nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("content_sha256", LargeBinary(32), nullable=False),
    Column("name", String(200)),
    Column("session_id", String(200)),
    Column("said_at", UtcMicros, nullable=False),
    # How far east of UTC the time was given, in seconds: what day it was for the user.
    Column("said_offset", Integer, nullable=False, server_default="0"),
    Column("expires_at", UtcMicros),
    # Of a forgotten turn the number stays, so that there is no gap, and the key, so that a late retry does not bring it
    # back.
    Column("forgotten_at", UtcMicros),
    Column("token_count", Integer, nullable=False),
    Column("trust", String(16), nullable=False, server_default="user"),
    Column("learn", Boolean, nullable=False, server_default=true()),
    _created(),
    _key("seq"),
    _to_subject(),
    UniqueConstraint("tenant_id", "subject_id", "idem_key", name="uq_lm_turn_idem"),
    _one_of("role", ROLES, "role"),
    # Room for what an encryption may add to a turn of the largest size.
    CheckConstraint(f"length(content) <= {MAX_TURN_BYTES + 1024}", name="size"),
    Index(
        "ix_lm_turn_expiry",
        "expires_at",
        sqlite_where=text("expires_at IS NOT NULL"),
        postgresql_where=text("expires_at IS NOT NULL"),
    ),
)

# The words by which a turn is found; none for a turn whose text is kept encrypted. No cascade: who deletes a turn takes
# it out of the index first, or is refused.
search = Table(
    "lm_search",
    metadata,
    Column("id", BigInt, nullable=False, autoincrement=True),
    *_owner(),
    Column("seq", BigInt, nullable=False, autoincrement=False),
    Column("words", Text().with_variant(TSVECTOR, "postgresql"), nullable=False),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("tenant_id", "subject_id", "seq", name="uq_lm_search_turn"),
    ForeignKeyConstraint(
        ["tenant_id", "subject_id", "seq"],
        ["lm_turn.tenant_id", "lm_turn.subject_id", "lm_turn.seq"],
        name="fk_lm_search_turn",
    ),
)

FTS_TABLE = "lm_search_fts"
"""SQLite's index over `lm_search`; see `sql/statements/search_index.py`. Words arrive cut and folded: only spaces part
them."""
_FTS = DDL(
    f"CREATE VIRTUAL TABLE {FTS_TABLE} USING fts5(words, content='lm_search', content_rowid='id', detail='none', "
    "tokenize='ascii')"
)  # type: ignore[no-untyped-call]
event.listen(search, "after_create", _FTS.execute_if(dialect="sqlite"))

# The bytes of one saved memory, named by their own digest within one user.
blob = Table(
    "lm_blob",
    metadata,
    *_owner(),
    Column("sha256", String(64), nullable=False),
    Column("size", BigInt, nullable=False),
    Column("store", String(8), nullable=False),
    Column("data", LargeBinary),
    Column("enc_header", LargeBinary),
    _created(),
    _key("sha256"),
    _to_subject(),
    CheckConstraint("(store = 'db' AND data IS NOT NULL) OR (store = 'fs' AND data IS NULL)", name="place"),
    CheckConstraint(f"size >= 0 AND size <= {MAX_PAYLOAD_BYTES}", name="size"),
)

# An immutable saved memory and the turns it learnt. `restores` names the older revision it brings back.
revision = Table(
    "lm_revision",
    metadata,
    *_owner(),
    Column("rev", BigInt, nullable=False, autoincrement=False),
    Column("parent_rev", BigInt, nullable=False),
    Column("restores", BigInt),
    Column("base_fingerprint", String(128), nullable=False),
    Column("config_hash", String(128), nullable=False),
    Column("code_version", String(64), nullable=False),
    Column("seed", BigInt, nullable=False),
    Column("from_seq", BigInt, nullable=False),
    Column("to_seq", BigInt, nullable=False),
    Column("turns_sha256", String(64), nullable=False),
    Column("blob_sha256", String(64)),
    Column("fence", BigInt, nullable=False),
    Column("metrics", Json, nullable=False),
    Column("state", String(12), nullable=False, server_default="live"),
    _created(),
    # Of the payload, and kept when it is pruned; NULL for "no memory".
    Column("payload_sha256", String(64)),
    Column("payload_bytes", BigInt),
    _key("rev"),
    _to_subject(),
    ForeignKeyConstraint(
        ["tenant_id", "subject_id", "blob_sha256"],
        ["lm_blob.tenant_id", "lm_blob.subject_id", "lm_blob.sha256"],
        name="fk_lm_revision_blob",
    ),
    # A quarantined revision stands beside the chain: its parent may have another child.
    Index(
        "uq_lm_revision_chain",
        "tenant_id",
        "subject_id",
        "parent_rev",
        unique=True,
        sqlite_where=text("state <> 'quarantined'"),
        postgresql_where=text("state <> 'quarantined'"),
    ),
    CheckConstraint("parent_rev >= 0 AND parent_rev < rev", name="order"),
    CheckConstraint("restores IS NULL OR (restores >= 0 AND restores < rev)", name="restores"),
    # Nothing learnt and no bytes: only what a rollback to "no memory" leaves.
    CheckConstraint(
        "from_seq <= to_seq OR (from_seq = 1 AND to_seq = 0 AND restores IS NOT NULL AND blob_sha256 IS NULL)",
        name="span",
    ),
    CheckConstraint("blob_sha256 IS NOT NULL OR to_seq = 0 OR state IN ('pruned', 'erased')", name="payload"),
    _one_of("state", ("live", "quarantined", "superseded", "pruned", "erased"), "state"),
)

# A question the memory was trained on. Its text never changes; `retired_rev` says whether it is in force now.
study_item = Table(
    "lm_study_item",
    metadata,
    *_owner(),
    Column("item_id", String(32), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("from_seq", BigInt, nullable=False),
    Column("to_seq", BigInt, nullable=False),
    Column("turn_seq", BigInt, nullable=False),
    Column("question", LargeBinary, nullable=False),
    Column("answer", LargeBinary, nullable=False),
    Column("teacher", LargeBinary, nullable=False),
    Column("added_rev", BigInt, nullable=False),
    Column("position", Integer, nullable=False),
    Column("retired_rev", BigInt),
    _key("item_id"),
    _to_subject(),
    Index("ix_lm_study_item_order", "tenant_id", "subject_id", "added_rev", "position"),
    _one_of("kind", (*ITEM_KINDS, "restatement"), "kind"),
    CheckConstraint("from_seq >= 1 AND from_seq <= to_seq AND turn_seq >= 0", name="span"),
    CheckConstraint("retired_rev IS NULL OR retired_rev > added_rev", name="retired"),
)

# When a study item left or re-entered force, append-only: the state at any revision can be told from it.
study_event = Table(
    "lm_study_event",
    metadata,
    *_owner(),
    Column("item_id", String(32), nullable=False),
    Column("rev", BigInt, nullable=False, autoincrement=False),
    Column("event", String(8), nullable=False),
    _key("item_id", "rev"),
    ForeignKeyConstraint(
        ["tenant_id", "subject_id", "item_id"],
        ["lm_study_item.tenant_id", "lm_study_item.subject_id", "lm_study_item.item_id"],
        name="fk_lm_study_event_item",
        ondelete="CASCADE",
    ),
    _one_of("event", ("retired", "restored"), "event"),
)

_OPEN_JOB = text("state IN ('ready','leased')")

# A request to consolidate up to `to_seq`, with the lease of the worker that holds it. One that is done is deleted.
# `stops`: where the consolidations ended that a rebuild repeats; NULL for an ordinary job.
job = Table(
    "lm_job",
    metadata,
    Column("id", Uuid, nullable=False),
    *_owner(),
    Column("state", String(12), nullable=False, server_default="ready"),
    Column("to_seq", BigInt, nullable=False),
    Column("epoch", BigInt, nullable=False),
    Column("run_after", UtcMicros, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("max_attempts", Integer, nullable=False, server_default="5"),
    Column("lease_owner", String(64)),
    Column("lease_fence", BigInt),
    Column("lease_until", UtcMicros),
    Column("last_error", String(500)),
    Column("stops", Json),
    PrimaryKeyConstraint("id"),
    _to_subject(),
    _one_of("state", ("ready", "leased", "done", "dead"), "state"),
    CheckConstraint(
        "(state = 'leased') = (lease_owner IS NOT NULL AND lease_fence IS NOT NULL AND lease_until IS NOT NULL)",
        name="lease",
    ),
    Index(
        "uq_lm_job_open",
        "tenant_id",
        "subject_id",
        unique=True,
        sqlite_where=_OPEN_JOB,
        postgresql_where=_OPEN_JOB,
    ),
    Index("ix_lm_job_claim", "run_after", sqlite_where=_OPEN_JOB, postgresql_where=_OPEN_JOB),
)

# Who may call a server: a tenant, or one user of it. Of the secret the digest. A user may have a key before the first
# turn, so no foreign key.
api_key = Table(
    "lm_api_key",
    metadata,
    Column("key_id", String(16), nullable=False),
    Column("tenant_id", String(64), nullable=False),
    Column("subject_id", String(200)),
    Column("label", String(200), nullable=False),
    Column("secret_sha256", LargeBinary(32), nullable=False),
    _created(),
    Column("revoked_at", UtcMicros),
    PrimaryKeyConstraint("key_id"),
    Index("ix_lm_api_key_owner", "tenant_id", "subject_id"),
)

# What was done to a user's memory, append-only. No foreign key: it outlives whatever it speaks of. No content.
audit = Table(
    "lm_audit",
    metadata,
    *_owner(),
    Column("seq", BigInt, nullable=False, autoincrement=False),
    Column("action", String(16), nullable=False),
    Column("facts", Json, nullable=False),
    Column("previous_sha256", String(64), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("created_at", UtcMicros, nullable=False),
    _key("seq"),
    _one_of("action", tuple(sorted((*AUDIT_ACTIONS, "quarantine"))), "action"),
)
