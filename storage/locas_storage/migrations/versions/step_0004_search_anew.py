"""Step 0004: the index of words is emptied, because texts are cut into words in another way since; the next search of each user fills it.

Knows nothing of the package's current schema, nor of how it cuts a text: a released step is frozen. No column changes.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the step."""
    _empty()


def downgrade() -> None:
    """Take the step back. The program of the step before fills the index in its own way, at the next search too."""
    _empty()


def _empty() -> None:
    op.execute(sa.text("DELETE FROM lm_search"))
    if op.get_bind().dialect.name == "sqlite":
        op.execute(sa.text("INSERT INTO lm_search_fts (lm_search_fts) VALUES ('rebuild')"))
