"""Step 0007: two columns that nothing reads are gone.

`lm_subject.lock_version` was counted up and never looked at, `lm_job.kind` had one value. A released step is frozen: it
takes nothing from the package.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Apply the step. A user has at most one open job, as before: there was one kind."""
    op.drop_index("uq_lm_job_open", "lm_job")
    op.execute("ALTER TABLE lm_job DROP COLUMN kind")
    _one_open_job("tenant_id", "subject_id")
    op.execute("ALTER TABLE lm_subject DROP COLUMN lock_version")


def downgrade() -> None:
    """Take the step back. The counts begin again."""
    op.add_column("lm_subject", sa.Column("lock_version", BIG, server_default="1", nullable=False))
    op.drop_index("uq_lm_job_open", "lm_job")
    # A column that may not be NULL needs a value for the rows that are there; the program of the step before names it.
    op.add_column("lm_job", sa.Column("kind", sa.String(length=16), server_default="consolidate", nullable=False))
    _one_open_job("tenant_id", "subject_id", "kind")


def _one_open_job(*columns: str) -> None:
    is_open = sa.text("state IN ('ready','leased')")
    op.create_index(
        "uq_lm_job_open", "lm_job", list(columns), unique=True, sqlite_where=is_open, postgresql_where=is_open
    )
