"""Owns what happens to a single connection.

SQLite's settings and the start of its transactions, and asking one of PostgreSQL if it lives.
"""

import selectors
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DBAPIError, InvalidatePoolError

from locas_storage.sql.database.driver_errors import WAIT_SECONDS

BEGIN = "locas_begin"
"""Execution option: what SQLite gets at the start of a transaction."""
_PRAGMAS = (
    "synchronous=FULL",
    "foreign_keys=ON",
    f"busy_timeout={WAIT_SECONDS * 1000}",
    "trusted_schema=OFF",
    "secure_delete=ON",
)
_Selector: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)
"""For one socket and one look: the default one makes a descriptor of its own first."""
_RESTED_SECONDS = 30.0
"""A connection unused for longer is asked whether it lives before it is used again; a firewall may have dropped it
without a word."""


def tune_sqlite(engine: Engine) -> None:
    """Give each connection its settings, and let every transaction begin as its execution option says.

    By taking the write lock unless told.
    """

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: object) -> None:
        # The driver begins no transaction before SELECT or DDL, so it is told to begin none and `_begin` does it.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in _PRAGMAS:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        how = connection.get_execution_options().get(BEGIN, "BEGIN IMMEDIATE")
        if how is not None:
            by_driver(connection, how)


def by_driver(connection: Connection, statement: str, parameters: Sequence[Any] = ()) -> Any:
    """Execute a statement on SQLite by the driver itself, and return its cursor.

    Errors are those SQLAlchemy would raise.

    For what every append does: SQLAlchemy's way takes 60 us a statement, SQLite's part in it 12.
    """
    driver = connection.dialect.loaded_dbapi
    try:
        return connection.connection.driver_connection.execute(statement, parameters)  # type: ignore[union-attr]
    except driver.Error as error:
        raise DBAPIError.instance(
            statement, None, error, driver.Error, hide_parameters=True, dialect=connection.dialect
        ) from error


def ask_the_rested(engine: Engine) -> None:
    """Hand out no dead connection, without a round trip to the server for each transaction.

    A server that ends a connection leaves word of it on the socket; an idle connection has nothing else to read.
    """
    last_used = "locas_last_used"

    @event.listens_for(engine, "checkin")
    def _checkin(_connection: Any, record: Any) -> None:
        record.info[last_used] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _checkout(connection: Any, record: Any, _proxy: object) -> None:
        used = record.info.get(last_used)
        if used is None or (time.monotonic() - used < _RESTED_SECONDS and not _has_word(connection.fileno())):
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:  # the pool then makes a new one
            raise InvalidatePoolError("the connection is dead") from error


def _has_word(socket: int) -> bool:
    with _Selector() as selector:
        selector.register(socket, selectors.EVENT_READ)
        return bool(selector.select(0))
