"""The numbered steps that make and change the tables; which step a database is at, and which one is the newest.

Released steps are never edited.
"""

import threading
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from locas_storage.sql.tables.schema import VERSION_TABLE

_one_at_a_time = threading.Lock()
"""Alembic keeps the running migration in a global of the process."""


@cache
def newest() -> str:
    """Return the step that this package expects a database to be at.

    Looked up once: alembic runs the file of every step to tell, and each store asks as it is opened.
    """
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    assert head is not None
    return head


@cache
def known() -> frozenset[str]:
    """Return every step of this package."""
    return frozenset(step.revision for step in ScriptDirectory.from_config(alembic_config()).walk_revisions())


def current(connection: Connection) -> str | None:
    """Return the step that a database is at, None if it has none."""
    return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()


def upgrade(connection: Connection) -> None:
    """Bring a database to the newest step, within the connection's transaction."""
    config = alembic_config()
    config.attributes["connection"] = connection
    with _one_at_a_time:
        command.upgrade(config, "head")


def alembic_config() -> Config:
    """Return what alembic's commands need to find the steps of this package."""
    config = Config()
    # A percent sign in the path would be read as an interpolation.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
