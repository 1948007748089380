"""Step 0004: the zone of the time that a turn was given, and an index of words that is made anew.

A user's day stays one day by the zone. Texts are cut into words in another way since, so the index is emptied; the next
search of each user fills it. A released step is frozen: it takes nothing from the package.
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
    _empty_index()


def downgrade() -> None:
    """Take the step back.

    Times stay what they are, in UTC; the program of the step before fills the index in its own way.
    """
    op.execute("ALTER TABLE lm_turn DROP COLUMN said_offset")
    _empty_index()


def _empty_index() -> None:
    op.execute(sa.text("DELETE FROM lm_search"))
    if op.get_bind().dialect.name == "sqlite":
        op.execute(sa.text("INSERT INTO lm_search_fts (lm_search_fts) VALUES ('rebuild')"))
