"""Owns the column types that SQLite and PostgreSQL share, and the database's clock."""

import datetime as dt
from typing import Any

from sqlalchemy import JSON, BigInteger, Dialect, Integer, TypeDecorator
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from locas_storage.records.time import micros, moment

BigInt = BigInteger().with_variant(Integer, "sqlite")
Json = JSON().with_variant(JSONB, "postgresql")


class UtcMicros(TypeDecorator[dt.datetime]):
    """A point in time, kept as microseconds since 1970-01-01 UTC and read back as an aware datetime.

    `DateTime(timezone=True)` comes back naive from SQLite, and SQLite compares such columns as text.
    """

    impl = BigInt
    cache_ok = True

    def process_bind_param(self, value: dt.datetime | None, dialect: Dialect) -> int | None:
        """Turn an aware datetime into microseconds."""
        return None if value is None else micros(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> dt.datetime | None:
        """Turn microseconds into an aware datetime in UTC."""
        return None if value is None else moment(value)


class DbNow(FunctionElement[dt.datetime]):
    """The database's clock. No client's clock ever enters a statement."""

    name = "db_now"
    type = UtcMicros()
    inherit_cache = True


@compiles(DbNow, "sqlite")
def _sqlite_now(element: DbNow, compiler: SQLCompiler, **kw: Any) -> str:
    # SQLite's clock ticks in milliseconds; unixepoch('subsec') would need SQLite 3.42.
    return "(CAST((julianday('now') - 2440587.5) * 86400000000.0 AS INTEGER))"


@compiles(DbNow, "postgresql")
def _postgresql_now(element: DbNow, compiler: SQLCompiler, **kw: Any) -> str:
    return "(CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT))"
