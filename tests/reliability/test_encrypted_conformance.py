"""The public conformance suite over an encrypted PostgreSQL store.

Over an encrypted SQLite store it runs with the unit tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from sqlalchemy import text

from locas_storage import FileKeyProvider, SqlMemoryStore, new_key_file
from locas_storage.conformance import *  # noqa: F403  the cases, collected by pytest from here
from locas_storage.sql.tables.schema import metadata
from tests.postgres_server import PostgresServer


@pytest.fixture(scope="module")
def encrypted(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlMemoryStore]:
    """One database for all cases: making one for each would take most of the time."""
    key_file = tmp_path_factory.mktemp("keys") / "keys"
    new_key_file(key_file)
    with closing(SqlMemoryStore(postgres_server.new_database(), key_provider=FileKeyProvider(key_file))) as store:
        store.users()  # makes the tables
        yield store


@pytest.fixture
def store(encrypted: SqlMemoryStore) -> SqlMemoryStore:
    with encrypted.database.write() as connection:
        connection.execute(text(f"TRUNCATE {', '.join(metadata.tables)}"))
    return encrypted
