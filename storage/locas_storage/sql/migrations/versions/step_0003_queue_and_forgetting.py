"""Step 0003: what a rebuild repeats, when a turn was forgotten, and an index of the turns that expire.

Knows nothing of the package's current schema: a released step is frozen.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Apply the step."""
    op.add_column("lm_job", sa.Column("stops", JSON, nullable=True))
    op.add_column("lm_turn", sa.Column("forgotten_at", BIG, nullable=True))
    expiring = sa.text("expires_at IS NOT NULL")
    op.create_index("ix_lm_turn_expiry", "lm_turn", ["expires_at"], sqlite_where=expiring, postgresql_where=expiring)


def downgrade() -> None:
    """Take the step back. What was forgotten stays so: its turns are then empty ones."""
    op.drop_index("ix_lm_turn_expiry", "lm_turn")
    op.execute("ALTER TABLE lm_turn DROP COLUMN forgotten_at")
    op.execute("ALTER TABLE lm_job DROP COLUMN stops")
