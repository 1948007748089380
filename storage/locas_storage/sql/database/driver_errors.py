"""Owns the translation of a driver's error into one of ours.

A driver's text is left out of the message, since some drivers quote values in it; the error itself is attached as the
cause.
"""

import sqlite3

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from locas_storage.errors import ForeignDatabase, StorageError, StorageFull, StoreUnavailable

WAIT_SECONDS = 30
"""How long a statement waits for another's lock before it gives up."""

_POSTGRESQL_DISK_FULL = "53100"
_SQLITE_HINTS = {
    sqlite3.SQLITE_BUSY: f"another process held it for {WAIT_SECONDS} s; close that or try again",
    sqlite3.SQLITE_CANTOPEN: "check that the folder exists and may be written to",
    sqlite3.SQLITE_READONLY: "it may not be written to; check the file's permissions",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; restore it from a backup",
}
_POSTGRESQL_HINTS = {
    "08": "the connection broke; nothing of this call is known to be kept, call again with the same keys",
    "25006": "the server takes no writes now; name the primary, or wait until it is promoted",
    "28": "the server refused the login; check user, password and pg_hba.conf",
    "3D000": "the server has no such database; create it first",
    "40": "it met another transaction and was undone; call again",
    "42501": "the role may not do this; grant it the rights on the schema",
    "53300": "the server has no connection left; close some or raise max_connections",
    "55P03": f"another transaction held it for {WAIT_SECONDS} s; try again",
    "57014": "it took too long and was cancelled; try again, or look at the server's load",
    "57P": "the server is stopping or starting; call again with the same keys",
}
"""By the beginning of the SQLSTATE, longest first."""


def named(error: SQLAlchemyError, name: str) -> StorageError:
    """Return the error of ours that an error of a driver stands for.

    Args:
        error: what SQLAlchemy raised.
        name: what messages call the database.
    """
    cause = error.orig if isinstance(error, DBAPIError) else None
    code = getattr(cause, "sqlite_errorcode", None)
    sqlstate = getattr(cause, "sqlstate", None)
    primary = code & 0xFF if isinstance(code, int) else None
    if primary == sqlite3.SQLITE_FULL or sqlstate == _POSTGRESQL_DISK_FULL:
        return StorageFull(f"{name}: no room left, nothing of this call was kept; free some space and call again")
    if primary == sqlite3.SQLITE_NOTADB:
        return ForeignDatabase(f"{name}: the file is not an SQLite database; name another path")
    what = getattr(cause, "sqlite_errorname", None) or sqlstate or type(cause or error).__name__
    return StoreUnavailable(f"{name}: {what}; {_hint(primary, sqlstate, cause)}")


def without_values(error: SQLAlchemyError) -> SQLAlchemyError:
    """Return the error with the server's text replaced.

    PostgreSQL quotes the row that it refused, which a traceback would show.
    """
    if isinstance(error, DBAPIError) and error.orig is not None and getattr(error.orig, "sqlstate", None):
        constraint = getattr(getattr(error.orig, "diag", None), "constraint_name", None)
        text = " ".join(filter(None, [str(getattr(error.orig, "sqlstate", "")), constraint]))
        error.orig.args = (text,)
        error.args = (f"({type(error.orig).__name__}) {text}",)
    return error


def _hint(primary: int | None, sqlstate: str | None, cause: BaseException | None) -> str:
    if primary in _SQLITE_HINTS:
        return _SQLITE_HINTS[primary]
    for length in (5, 3, 2):
        if sqlstate and sqlstate[:length] in _POSTGRESQL_HINTS:
            return _POSTGRESQL_HINTS[sqlstate[:length]]
    if primary is None and sqlstate is None and type(cause).__name__ == "OperationalError":
        # psycopg gives no code where there is no answer: refused, unreachable, or cut off midway.
        return "the server cannot be reached or went away; check that it runs, then call again with the same keys"
    return "the driver's error is attached as the cause"
