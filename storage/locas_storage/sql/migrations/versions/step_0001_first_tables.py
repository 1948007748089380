"""Step 0001: the first tables.

Knows nothing of the package's current schema: a released step is frozen. Times are microseconds since 1970 in UTC.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "lm_audit",
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("subject_id", sa.String(length=200), nullable=False),
        sa.Column("seq", BIG, autoincrement=False, nullable=False),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("facts", JSON, nullable=False),
        sa.Column("previous_sha256", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("created_at", BIG, nullable=False),
        sa.CheckConstraint(
            "action IN ('erase', 'export', 'forget', 'import', 'quarantine', 'refuse', 'revert')",
            name=op.f("ck_lm_audit_action"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "subject_id", "seq", name=op.f("pk_lm_audit")),
    )
    op.create_table(
        "lm_subject",
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("subject_id", sa.String(length=200), nullable=False),
        sa.Column("next_seq", BIG, server_default="1", nullable=False),
        sa.Column("next_rev", BIG, server_default="1", nullable=False),
        sa.Column("head_rev", BIG, server_default="0", nullable=False),
        sa.Column("consolidated_seq", BIG, server_default="0", nullable=False),
        sa.Column("fence", BIG, server_default="0", nullable=False),
        sa.Column("epoch", BIG, server_default="0", nullable=False),
        sa.Column("erased_at", BIG, nullable=True),
        sa.Column("wrapped_dek", sa.LargeBinary(), nullable=True),
        sa.Column("kek_id", sa.String(length=64), nullable=True),
        sa.Column("lock_version", BIG, server_default="1", nullable=False),
        sa.Column("created_at", BIG, nullable=False),
        sa.CheckConstraint("consolidated_seq < next_seq", name=op.f("ck_lm_subject_watermark")),
        sa.CheckConstraint("head_rev >= 0 AND head_rev < next_rev", name=op.f("ck_lm_subject_head")),
        sa.PrimaryKeyConstraint("tenant_id", "subject_id", name=op.f("pk_lm_subject")),
    )
    op.create_table(
        "lm_blob",
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("subject_id", sa.String(length=200), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size", BIG, nullable=False),
        sa.Column("store", sa.String(length=8), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=True),
        sa.Column("enc_header", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", BIG, nullable=False),
        sa.CheckConstraint(
            "(store = 'db' AND data IS NOT NULL) OR (store = 'fs' AND data IS NULL)", name=op.f("ck_lm_blob_place")
        ),
        sa.CheckConstraint("size >= 0 AND size <= 1073741824", name=op.f("ck_lm_blob_size")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "subject_id"],
            ["lm_subject.tenant_id", "lm_subject.subject_id"],
            name=op.f("fk_lm_blob_tenant_id_lm_subject"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "subject_id", "sha256", name=op.f("pk_lm_blob")),
    )
    op.create_table(
        "lm_job",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("subject_id", sa.String(length=200), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=12), server_default="ready", nullable=False),
        sa.Column("to_seq", BIG, nullable=False),
        sa.Column("epoch", BIG, nullable=False),
        sa.Column("run_after", BIG, nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("max_attempts", sa.Integer(), server_default="5", nullable=False),
        sa.Column("lease_owner", sa.String(length=64), nullable=True),
        sa.Column("lease_fence", BIG, nullable=True),
        sa.Column("lease_until", BIG, nullable=True),
        sa.Column("last_error", sa.String(length=500), nullable=True),
        sa.CheckConstraint(
            "(state = 'leased') = (lease_owner IS NOT NULL AND lease_fence IS NOT NULL AND lease_until IS NOT NULL)",
            name=op.f("ck_lm_job_lease"),
        ),
        sa.CheckConstraint("state IN ('ready', 'leased', 'done', 'dead')", name=op.f("ck_lm_job_state")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "subject_id"],
            ["lm_subject.tenant_id", "lm_subject.subject_id"],
            name=op.f("fk_lm_job_tenant_id_lm_subject"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lm_job")),
    )
    op.create_index(
        "ix_lm_job_claim",
        "lm_job",
        ["run_after"],
        unique=False,
        sqlite_where=sa.text("state IN ('ready','leased')"),
        postgresql_where=sa.text("state IN ('ready','leased')"),
    )
    op.create_index(
        "uq_lm_job_open",
        "lm_job",
        ["tenant_id", "subject_id", "kind"],
        unique=True,
        sqlite_where=sa.text("state IN ('ready','leased')"),
        postgresql_where=sa.text("state IN ('ready','leased')"),
    )
    op.create_table(
        "lm_study_item",
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("subject_id", sa.String(length=200), nullable=False),
        sa.Column("item_id", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("from_seq", BIG, nullable=False),
        sa.Column("to_seq", BIG, nullable=False),
        sa.Column("turn_seq", BIG, nullable=False),
        sa.Column("question", sa.LargeBinary(), nullable=False),
        sa.Column("answer", sa.LargeBinary(), nullable=False),
        sa.Column("teacher", sa.LargeBinary(), nullable=False),
        sa.Column("added_rev", BIG, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("retired_rev", BIG, nullable=True),
        sa.CheckConstraint(
            "kind IN ('question', 'negative', 'probe', 'restatement')", name=op.f("ck_lm_study_item_kind")
        ),
        sa.CheckConstraint(
            "from_seq >= 1 AND from_seq <= to_seq AND turn_seq >= 0", name=op.f("ck_lm_study_item_span")
        ),
        sa.CheckConstraint("retired_rev IS NULL OR retired_rev > added_rev", name=op.f("ck_lm_study_item_retired")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "subject_id"],
            ["lm_subject.tenant_id", "lm_subject.subject_id"],
            name=op.f("fk_lm_study_item_tenant_id_lm_subject"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "subject_id", "item_id", name=op.f("pk_lm_study_item")),
    )
    op.create_index(
        "ix_lm_study_item_order", "lm_study_item", ["tenant_id", "subject_id", "added_rev", "position"], unique=False
    )
    op.create_table(
        "lm_turn",
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("subject_id", sa.String(length=200), nullable=False),
        sa.Column("seq", BIG, autoincrement=False, nullable=False),
        sa.Column("idem_key", sa.String(length=200), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("content_sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=True),
        sa.Column("session_id", sa.String(length=200), nullable=True),
        sa.Column("said_at", BIG, nullable=False),
        sa.Column("expires_at", BIG, nullable=True),
        sa.Column("token_count", sa.Integer(), nullable=False),
        sa.Column("trust", sa.String(length=16), server_default="user", nullable=False),
        sa.Column("created_at", BIG, nullable=False),
        sa.CheckConstraint("role IN ('system', 'user', 'assistant', 'tool')", name=op.f("ck_lm_turn_role")),
        sa.CheckConstraint("length(content) <= 1049600", name=op.f("ck_lm_turn_size")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "subject_id"],
            ["lm_subject.tenant_id", "lm_subject.subject_id"],
            name=op.f("fk_lm_turn_tenant_id_lm_subject"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "subject_id", "seq", name=op.f("pk_lm_turn")),
        sa.UniqueConstraint("tenant_id", "subject_id", "idem_key", name="uq_lm_turn_idem"),
    )
    op.create_table(
        "lm_revision",
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("subject_id", sa.String(length=200), nullable=False),
        sa.Column("rev", BIG, autoincrement=False, nullable=False),
        sa.Column("parent_rev", BIG, nullable=False),
        sa.Column("restores", BIG, nullable=True),
        sa.Column("base_fingerprint", sa.String(length=128), nullable=False),
        sa.Column("config_hash", sa.String(length=128), nullable=False),
        sa.Column("code_version", sa.String(length=64), nullable=False),
        sa.Column("seed", BIG, nullable=False),
        sa.Column("from_seq", BIG, nullable=False),
        sa.Column("to_seq", BIG, nullable=False),
        sa.Column("turns_sha256", sa.String(length=64), nullable=False),
        sa.Column("blob_sha256", sa.String(length=64), nullable=True),
        sa.Column("fence", BIG, nullable=False),
        sa.Column("metrics", JSON, nullable=False),
        sa.Column("state", sa.String(length=12), server_default="live", nullable=False),
        sa.Column("created_at", BIG, nullable=False),
        sa.CheckConstraint(
            "blob_sha256 IS NOT NULL OR to_seq = 0 OR state IN ('pruned', 'erased')",
            name=op.f("ck_lm_revision_payload"),
        ),
        sa.CheckConstraint(
            "state IN ('live', 'quarantined', 'superseded', 'pruned', 'erased')", name=op.f("ck_lm_revision_state")
        ),
        sa.CheckConstraint(
            "from_seq <= to_seq OR (from_seq = 1 AND to_seq = 0 AND restores IS NOT NULL AND blob_sha256 IS NULL)",
            name=op.f("ck_lm_revision_span"),
        ),
        sa.CheckConstraint("parent_rev >= 0 AND parent_rev < rev", name=op.f("ck_lm_revision_order")),
        sa.CheckConstraint(
            "restores IS NULL OR (restores >= 0 AND restores < rev)", name=op.f("ck_lm_revision_restores")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "subject_id", "blob_sha256"],
            ["lm_blob.tenant_id", "lm_blob.subject_id", "lm_blob.sha256"],
            name="fk_lm_revision_blob",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "subject_id"],
            ["lm_subject.tenant_id", "lm_subject.subject_id"],
            name=op.f("fk_lm_revision_tenant_id_lm_subject"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "subject_id", "rev", name=op.f("pk_lm_revision")),
    )
    op.create_index(
        "uq_lm_revision_chain",
        "lm_revision",
        ["tenant_id", "subject_id", "parent_rev"],
        unique=True,
        sqlite_where=sa.text("state <> 'quarantined'"),
        postgresql_where=sa.text("state <> 'quarantined'"),
    )
    op.create_table(
        "lm_study_event",
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("subject_id", sa.String(length=200), nullable=False),
        sa.Column("item_id", sa.String(length=32), nullable=False),
        sa.Column("rev", BIG, autoincrement=False, nullable=False),
        sa.Column("event", sa.String(length=8), nullable=False),
        sa.CheckConstraint("event IN ('retired', 'restored')", name=op.f("ck_lm_study_event_event")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "subject_id", "item_id"],
            ["lm_study_item.tenant_id", "lm_study_item.subject_id", "lm_study_item.item_id"],
            name="fk_lm_study_event_item",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "subject_id", "item_id", "rev", name=op.f("pk_lm_study_event")),
    )


def downgrade() -> None:
    """Drop the tables and all that is in them."""
    for table in (
        "lm_study_event",
        "lm_revision",
        "lm_turn",
        "lm_study_item",
        "lm_job",
        "lm_blob",
        "lm_subject",
        "lm_audit",
    ):
        op.drop_table(table)
