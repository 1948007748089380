"""Step 0004: the zone of the time that a turn was given, so that a user's day stays one day.

Knows nothing of the package's current schema: a released step is frozen.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the step. Turns that are there were said in UTC, as far as is known."""
    op.add_column("lm_turn", sa.Column("said_offset", sa.Integer(), nullable=False, server_default="0"))


def downgrade() -> None:
    """Take the step back. Times stay what they are, in UTC."""
    op.execute("ALTER TABLE lm_turn DROP COLUMN said_offset")
