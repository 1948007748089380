"""Owns the way to a database, SQLite or PostgreSQL: the engine, its settings, and which transactions there are."""

import logging
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, Pool, StaticPool, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from locas_storage.errors import StoreUnavailable
from locas_storage.sql.database.connections import BEGIN, ask_the_rested, tune_sqlite
from locas_storage.sql.database.driver_errors import WAIT_SECONDS, named, without_values

logger = logging.getLogger(__name__)

_CHECKPOINT_SECONDS = 2
"""How long emptying the write-ahead log waits for readers; writers of this process wait as long."""
SQLITE_VERSION = sqlite3.sqlite_version_info
_WAL_RESET_BUG = ((3, 7, 0), (3, 51, 2))
"""First and last version of SQLite in which two connections that write the same file in WAL mode can damage it."""
_POSTGRESQL_SETTINGS = {
    # A statement that hangs ends; the largest payload takes seconds. Values are milliseconds.
    "options": f"-c statement_timeout=120000 -c lock_timeout={WAIT_SECONDS * 1000} -c "
    "idle_in_transaction_session_timeout=120000",
    "connect_timeout": "10",
    # A connection whose other end is gone without a word is noticed after about a minute.
    "keepalives": "1",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "client_encoding": "utf8",
    "application_name": "locas-agent",
}
"""Parameters of a connection; those that the URL names are left as they are."""
_WATCHED_DRIVER = "psycopg"
"""Whose connections tell by their socket that the server is gone, so that only a rested one has to be asked; others are
asked each time."""
_SCHEMA_LOCK = int.from_bytes(b"locas db", "big")
"""Key of the advisory lock under which the tables are made and changed."""

_HIDDEN = "***"
"""What is shown of a URL that cannot be read."""

_LOG_NAME = "locas"
"""Tells this package's engines from an application's among SQLAlchemy's loggers."""

_has_warned_of_wal_reset = False

_left_to_parent: list[Pool] = []
"""Pools inherited over a fork. SQLite forbids even closing such connections in the child, so they are kept for ever."""


class Database:
    """One database and the ways to talk to it: `read`, `write` and `migrate`. Constructing it opens nothing.

    On SQLite a write takes the write lock when it begins, since a transaction that reads first and then upgrades fails
    at once when another has written. Writers of this process queue at a lock of ours, which is fair and faster than
    SQLite's own waiting. A database in memory is one connection, so there reads queue too.

    On PostgreSQL a write is READ COMMITTED, and what must not change under it is locked row by row; a read is
    REPEATABLE READ, so that all of its statements see one state.

    Args:
        url: an SQLAlchemy URL of SQLite or PostgreSQL; `sqlite://` is a database in memory, a `Path` is an SQLite file.

    Raises:
        StoreUnavailable: not such a URL, or its driver is not installed.
    """

    def __init__(self, url: str | Path) -> None:
        try:
            self.url: URL = _parsed(url)
            self.is_sqlite = self.url.get_backend_name() == "sqlite"
            self.is_in_memory = self.is_sqlite and _names_memory(self.url)
            self.engine: Engine = create_engine(
                self.url, hide_parameters=True, logging_name=_LOG_NAME, **self._options()
            )
        except (ArgumentError, ImportError) as error:
            raise StoreUnavailable(
                "store: not the URL of an SQLite or PostgreSQL database, or its driver is not installed (extra "
                "`postgres`); "
                "expected something like sqlite:///locas.db or postgresql+psycopg://user@host/database; "
                "in a password @ is written as %40, : as %3A and / as %2F"
            ) from error
        logging.getLogger(f"sqlalchemy.engine.Engine.{_LOG_NAME}").addFilter(_no_rows)
        self._lock = threading.RLock()
        self.opening = threading.Lock()
        """Held by the thread that takes the first look at the database, or closes it."""
        if self.is_sqlite:
            tune_sqlite(self.engine)
        elif self.engine.driver == _WATCHED_DRIVER:
            ask_the_rested(self.engine)
        _forget_at_fork(self)

    def _options(self) -> dict[str, Any]:
        if self.is_in_memory:
            return {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
        if self.is_sqlite:
            return {}
        if self.url.get_backend_name() != "postgresql":
            raise ArgumentError("neither SQLite nor PostgreSQL")
        settings = {name: value for name, value in _POSTGRESQL_SETTINGS.items() if name not in self.url.query}
        is_watched = self.url.get_driver_name() == _WATCHED_DRIVER
        return {"pool_pre_ping": not is_watched, "isolation_level": "READ COMMITTED", "connect_args": settings}

    @property
    def name(self) -> str:
        """What messages call this database: its URL as `shown_url` shows it."""
        return shown_url(self.url)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Begin a transaction that sees one state of the database and takes no write lock."""
        with self._queue(self.is_in_memory), self._named_errors(), self.engine.connect() as connection:
            if self.is_sqlite:
                connection = connection.execution_options(**{BEGIN: "BEGIN"})
            else:
                connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            with connection.begin():
                yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Begin a transaction that writes; it is committed at the end of the block, undone by any exception."""
        with self._queue(self.is_sqlite), self._named_errors(), self.engine.begin() as connection:
            yield connection

    def is_missing(self) -> bool:
        """Tell whether it is an SQLite file that does not exist; opening it would make it."""
        path = str(self.url.database)
        return self.is_sqlite and not self.is_in_memory and not path.startswith("file:") and not Path(path).exists()

    def warn_of_other_writers(self) -> None:
        """Warn, once per process, when somebody else has the file open and SQLite has its WAL-reset bug.

        To be called before the first connection: the log beside the file is there while anybody has the file open.
        """
        if self.is_sqlite and not self.is_in_memory and Path(f"{self.url.database}-wal").exists():
            _warn_of_wal_reset_bug()

    @contextmanager
    def migrate(self) -> Iterator[Connection]:
        """Begin a transaction that makes or changes tables, one at a time over all processes, however long it takes."""
        with self.write() as connection:
            if not self.is_sqlite:
                connection.execute(text("SET LOCAL statement_timeout = 0"))
                connection.execute(text("SET LOCAL lock_timeout = 0"))
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SCHEMA_LOCK})
            yield connection

    def use_write_ahead_log(self) -> None:
        """Switch an SQLite file to its write-ahead log, which stays so. Only for a database known to be ours."""
        if not self.is_sqlite or self.is_in_memory:
            return
        with self._queue(True), self._named_errors(), self.engine.connect() as connection:
            # The switch is refused within a transaction, so none is begun.
            connection = connection.execution_options(**{BEGIN: None})
            if connection.exec_driver_sql("PRAGMA journal_mode").scalar() != "wal":
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")

    def overwrite_log(self) -> bool:
        """Move SQLite's write-ahead log into its file and empty it.

        Tell whether what was deleted is overwritten everywhere.

        False while another connection still reads an older state, and on PostgreSQL, whose dead rows stay until it
        vacuums.
        """
        if not self.is_sqlite or self.is_in_memory:
            return self.is_in_memory
        with self._queue(True), self._named_errors(), self.engine.connect() as connection:
            connection = connection.execution_options(**{BEGIN: None})
            connection.exec_driver_sql(f"PRAGMA busy_timeout={_CHECKPOINT_SECONDS * 1000}")
            busy = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()[0]
            connection.exec_driver_sql(f"PRAGMA busy_timeout={WAIT_SECONDS * 1000}")
            return bool(busy == 0)

    def rewrite(self, tables: Iterable[str]) -> bool:
        """Write tables again without what was replaced or deleted in them, on SQLite the whole file.

        Tell what `overwrite_log` tells.

        It waits until nobody else is at work on them, as long as any statement waits for a lock.
        """
        if self.is_in_memory:
            return True
        if self.is_sqlite:
            with self._queue(True), self._named_errors(), self.engine.connect() as connection:
                connection.execution_options(**{BEGIN: None}).exec_driver_sql("VACUUM")
            return self.overwrite_log()
        with self._named_errors(), self.engine.connect() as connection:
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.exec_driver_sql("SET statement_timeout = 0")
            try:
                for table in tables:
                    connection.exec_driver_sql(f"VACUUM (FULL, ANALYZE) {table}")
            finally:
                connection.exec_driver_sql("RESET statement_timeout")
        return False

    def close(self) -> None:
        """Close the idle connections."""
        with self._queue(self.is_sqlite):
            self.engine.dispose()

    def renew_after_fork(self) -> None:
        """In a forked child.

        Let go of the parent's connections without closing them, and of locks held by its threads.
        """
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
            raise named(error, self.name) from without_values(error)


def shown_url(url: str | Path | URL) -> str:
    """Return a database's URL as messages, logs and traces may show it: without password and options.

    Options are left out since some are secrets too. Of what is no URL, or one in which password and host cannot be told
    apart, nothing is shown.
    """
    try:
        parsed = _parsed(url)
    except ArgumentError:
        return _HIDDEN
    return parsed.set(query={}).render_as_string(hide_password=True)


def _parsed(url: str | Path | URL) -> URL:
    """Parse a URL, a path being that of an SQLite file.

    Unlike SQLAlchemy's own errors, those of this quote nothing of it.

    Raises:
        ArgumentError: it is none, or holds a character that would have to be escaped: what SQLAlchemy takes for host or
            port is then a part of the password.
    """
    if isinstance(url, Path):
        return URL.create("sqlite", database=str(url))
    if not isinstance(url, str | URL):
        raise ArgumentError(f"a URL is a text, got {type(url).__name__}")
    try:
        parsed = make_url(url)
    except ValueError:
        parsed = None  # of the port, and it quotes what it took for one
    if parsed is None or "@" in (parsed.host or ""):
        raise ArgumentError("neither a host nor a port stands where one is expected")
    return parsed


def _no_rows(record: logging.LogRecord) -> bool:
    """Drop what SQLAlchemy says at DEBUG: every row of every result, which `hide_parameters` leaves as it is."""
    return record.levelno > logging.DEBUG


def _names_memory(url: URL) -> bool:
    database = url.database or ""
    return (
        database in ("", ":memory:")
        or database.startswith("file::memory:")
        or url.query.get("mode") == "memory"
        or "mode=memory" in database
    )


def _warn_of_wal_reset_bug() -> None:
    global _has_warned_of_wal_reset
    first, last = _WAL_RESET_BUG
    if _has_warned_of_wal_reset or not first <= SQLITE_VERSION <= last:
        return
    _has_warned_of_wal_reset = True
    logger.warning(
        "SQLite %s can damage a file that two connections write at once (the WAL-reset bug, fixed in 3.51.3), and "
        "another has this one open: "
        "let one store of one process write each file, run a Python with a newer SQLite, or use PostgreSQL",
        ".".join(map(str, SQLITE_VERSION)),
    )


def _forget_at_fork(database: Database) -> None:
    # A hook cannot be taken back, so it must not keep the database alive.
    reference = weakref.ref(database)

    def renew() -> None:
        alive = reference()
        if alive is not None:
            alive.renew_after_fork()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=renew)
