"""Detect what a database contains (nothing, our tables, an older version, foreign tables) and upgrade it on request."""

import logging
from dataclasses import dataclass

from sqlalchemy import Connection, inspect

from locas_storage.errors import ForeignDatabase, SchemaOutdated
from locas_storage.sql import migrations
from locas_storage.sql.database.engine import Database
from locas_storage.sql.tables.schema import VERSION_TABLE, metadata

logger = logging.getLogger(__name__)

UPGRADE_COMMAND = "locas-agent db upgrade"


@dataclass(frozen=True, slots=True)
class SchemaVersion:
    """Which step of the migrations a database is at, and which one this package expects.

    Attributes:
        current: the step the database is at, None if it holds no tables of ours.
        expected: the newest step of this package.
    """

    current: str | None
    expected: str

    @property
    def is_current(self) -> bool:
        """True when the database can be used as it is."""
        return self.current == self.expected


def schema_version(url: str) -> SchemaVersion:
    """Tell which version a database is at, changing nothing in it.

    Raises:
        ForeignDatabase: not a database, or tables with our names that we did not make.
    """
    database = Database(url)
    if database.is_missing():  # a look would make the file
        return SchemaVersion(None, migrations.newest())
    try:
        with database.read() as connection:
            return _look(connection, database)[0]
    finally:
        database.close()


def check_schema(url: str) -> SchemaVersion:
    """Tell which version a database is at if it can be used as it is, changing nothing in it.

    Raises:
        SchemaOutdated: it is at another version, or holds no tables yet; the message names the command to run.
        ForeignDatabase: not a database, or tables with our names that we did not make.
    """
    version = schema_version(url)
    if not version.is_current:
        raise _outdated(version, Database(url))
    return version


def upgrade_schema(url: str) -> SchemaVersion:
    """Bring a database to the version this package expects, all steps or none, and tell the version it is at now.

    Unlike the first use of a store it also adds our tables beside those of an application that shares the database.

    Raises:
        SchemaOutdated: the database was made by a newer version of this package.
        ForeignDatabase: not a database, or tables with our names that we did not make.
    """
    database = Database(url)
    try:
        return _upgrade(database)
    finally:
        database.close()


def prepare(database: Database) -> None:
    """Make a database ready for use: create the tables in an empty one, check the version of ours.

    Raises:
        SchemaOutdated: ours, at another version.
        ForeignDatabase: not a database, or somebody else's. It is left as it is.
    """
    database.warn_of_other_writers()
    with database.read() as connection:
        version, has_others = _look(connection, database)
    if version.current is None:
        if has_others:
            raise ForeignDatabase(
                f"{database.name}: holds tables but none of this package; name another database, or run "
                f"`{UPGRADE_COMMAND}` to add ours to it"
            )
        _upgrade(database)
    elif not version.is_current:
        raise _outdated(version, database)
    else:
        database.use_write_ahead_log()


def _upgrade(database: Database) -> SchemaVersion:
    with database.read() as connection:
        _look(connection, database)
    database.use_write_ahead_log()
    with database.migrate() as connection:
        # Looked at again under the lock: another process may have done the work meanwhile.
        version, _ = _look(connection, database)
        if version.is_current:
            return version
        if version.current is not None and version.current not in migrations.known():
            raise _outdated(version, database)
        migrations.upgrade(connection)
    logger.info("schema upgraded", extra={"action": "upgrade", "version": version.expected})
    return SchemaVersion(version.expected, version.expected)


def _look(connection: Connection, database: Database) -> tuple[SchemaVersion, bool]:
    """Return the version, and whether there are tables of others."""
    tables = set(inspect(connection).get_table_names())
    ours = tables & set(metadata.tables)
    current = migrations.current(connection) if VERSION_TABLE in tables else None
    if current is None and ours:
        raise ForeignDatabase(
            f"{database.name}: holds {len(ours)} tables with names of this package but no version in {VERSION_TABLE}; "
            "name another database"
        )
    return SchemaVersion(current, migrations.newest()), bool(tables - ours - {VERSION_TABLE})


def _outdated(version: SchemaVersion, database: Database) -> SchemaOutdated:
    if version.current is None:
        return SchemaOutdated(
            f"{database.name}: holds no tables of this package yet; run `{UPGRADE_COMMAND}` to make them"
        )
    found = f"{database.name}: tables are at version {version.current}, this package expects {version.expected}"
    if version.current in migrations.known():
        return SchemaOutdated(f"{found}; make a backup and run `{UPGRADE_COMMAND}`")
    return SchemaOutdated(
        f"{found} and does not know that one; install the newer locas-agent that made them (`{UPGRADE_COMMAND}` cannot "
        "go back)"
    )
