"""Step 0006: whether a turn may be learnt. A released step is frozen: it takes nothing from the package."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the step. Turns that are there may be learnt, as they always could."""
    op.add_column("lm_turn", sa.Column("learn", sa.Boolean(), nullable=False, server_default=sa.true()))


def downgrade() -> None:
    """Take the step back. The program of the step before would learn what was not to be learnt."""
    op.execute("ALTER TABLE lm_turn DROP COLUMN learn")
