"""Step 0005: the keys of a server.

A released step is frozen: it takes nothing from the package.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Apply the step."""
    op.create_table(
        "lm_api_key",
        sa.Column("key_id", sa.String(16), nullable=False),
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("subject_id", sa.String(200)),
        sa.Column("label", sa.String(200), nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("created_at", BIG, nullable=False),
        sa.Column("revoked_at", BIG),
        sa.PrimaryKeyConstraint("key_id", name="pk_lm_api_key"),
    )
    op.create_index("ix_lm_api_key_owner", "lm_api_key", ["tenant_id", "subject_id"])


def downgrade() -> None:
    """Take the step back; the keys are gone."""
    op.drop_table("lm_api_key")
