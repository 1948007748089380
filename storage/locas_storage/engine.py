"""Owns the connection to a database: engine settings, how a transaction begins, and the names of a driver's errors.

Knows nothing of tables.
"""

import logging
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from sqlalchemy import URL, Connection, Engine, Pool, StaticPool, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from locas_storage.errors import ForeignDatabase, StorageError, StorageFull, StoreUnavailable

logger = logging.getLogger(__name__)

BUSY_TIMEOUT_SECONDS = 30
_BEGIN = "locas_begin"
"""Execution option: what SQLite gets at the start of a transaction."""
_PRAGMAS = (
    "synchronous=FULL",
    "foreign_keys=ON",
    f"busy_timeout={BUSY_TIMEOUT_SECONDS * 1000}",
    "trusted_schema=OFF",
    "secure_delete=ON",
)
_POSTGRESQL_DISK_FULL = "53100"

_left_to_parent: list[Pool] = []
"""Pools inherited over a fork. SQLite forbids even closing such connections in the child, so they are kept for ever."""


class Database:
    """One database and the two ways to talk to it: `read` and `write`. Constructing it opens nothing.

    On SQLite a write takes the write lock when it begins, since a transaction that reads first and then upgrades fails
    at once when another has written. Writers of this process queue at a lock of ours, which is fair and faster than
    SQLite's own waiting. A database in memory is one connection, so there reads queue too.

    Args:
        url: any SQLAlchemy URL; `sqlite://` is a database in memory.

    Raises:
        StoreUnavailable: not a URL, or its driver is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            self.url: URL = make_url(url)
            self.is_sqlite = self.url.get_backend_name() == "sqlite"
            self.is_in_memory = self.is_sqlite and _names_memory(self.url)
            options: dict[str, Any] = {"hide_parameters": True}
            if self.is_in_memory:
                options |= {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
            elif not self.is_sqlite:
                options |= {"pool_pre_ping": True}
            self.engine: Engine = create_engine(self.url, **options)
        except (ArgumentError, ImportError) as error:
            raise StoreUnavailable("store: not a database URL, or its driver is not installed; expected something like sqlite:///locas.db") from error
        self._lock = threading.RLock()
        self.opening = threading.Lock()
        """Held by whoever takes the first look at the database, or closes it."""
        if self.is_sqlite:
            _tune_sqlite(self.engine)
        _forget_at_fork(self)

    @property
    def name(self) -> str:
        """What messages call this database: its URL without a password."""
        return self.url.render_as_string(hide_password=True)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Begin a transaction that sees one state of the database and takes no write lock."""
        with self._queue(self.is_in_memory), self._named_errors(), self.engine.connect() as connection:
            connection = connection.execution_options(**{_BEGIN: "BEGIN"})
            with connection.begin():
                yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Begin a transaction that writes; it is committed at the end of the block, undone by any exception."""
        with self._queue(self.is_sqlite), self._named_errors(), self.engine.begin() as connection:
            yield connection

    def use_write_ahead_log(self) -> None:
        """Switch an SQLite file to its write-ahead log, which stays so. Only for a database known to be ours."""
        if not self.is_sqlite or self.is_in_memory:
            return
        with self._queue(True), self._named_errors(), self.engine.connect() as connection:
            # The switch is refused within a transaction, so none is begun.
            connection = connection.execution_options(**{_BEGIN: None})
            if connection.exec_driver_sql("PRAGMA journal_mode").scalar() != "wal":
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")

    def close(self) -> None:
        """Close the idle connections."""
        with self._queue(self.is_sqlite):
            self.engine.dispose()

    def renew_after_fork(self) -> None:
        """In a forked child: let go of the parent's connections without closing them, and of locks held by its threads."""
        self._lock, self.opening = threading.RLock(), threading.Lock()
        if not self.is_in_memory:  # memory was copied with the process and stays usable
            _left_to_parent.append(self.engine.pool)
            self.engine.dispose(close=False)

    def _queue(self, needed: bool) -> AbstractContextManager[Any]:
        return self._lock if needed else nullcontext()

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            raise _named(error, self.name) from error


def _names_memory(url: URL) -> bool:
    database = url.database or ""
    return database in ("", ":memory:") or database.startswith("file::memory:") or url.query.get("mode") == "memory" or "mode=memory" in database


def _named(error: SQLAlchemyError, name: str) -> StorageError:
    """Translate an error of the driver. Its text is left out, since some drivers quote values in it."""
    cause = error.orig if isinstance(error, DBAPIError) else None
    code = getattr(cause, "sqlite_errorcode", None)
    sqlstate = getattr(cause, "sqlstate", None)
    primary = code & 0xFF if isinstance(code, int) else None
    if primary == sqlite3.SQLITE_FULL or sqlstate == _POSTGRESQL_DISK_FULL:
        return StorageFull(f"{name}: no room left, nothing of this call was kept; free some space and call again")
    if primary == sqlite3.SQLITE_NOTADB:
        return ForeignDatabase(f"{name}: the file is not an SQLite database; name another path")
    what = getattr(cause, "sqlite_errorname", None) or sqlstate or type(cause or error).__name__
    hint = {
        sqlite3.SQLITE_BUSY: f"another process held it for {BUSY_TIMEOUT_SECONDS} s; close that or try again",
        sqlite3.SQLITE_CANTOPEN: "check that the folder exists and may be written to",
        sqlite3.SQLITE_READONLY: "it may not be written to; check the file's permissions",
        sqlite3.SQLITE_CORRUPT: "the file is damaged; restore it from a backup",
    }.get(primary or 0, "the driver's error is attached as the cause")
    return StoreUnavailable(f"{name}: {what}; {hint}")


def _tune_sqlite(engine: Engine) -> None:
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
        how = connection.get_execution_options().get(_BEGIN, "BEGIN IMMEDIATE")
        if how is not None:
            connection.exec_driver_sql(how)


def _forget_at_fork(database: Database) -> None:
    # A hook cannot be taken back, so it must not keep the database alive.
    reference = weakref.ref(database)

    def renew() -> None:
        alive = reference()
        if alive is not None:
            alive.renew_after_fork()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=renew)
