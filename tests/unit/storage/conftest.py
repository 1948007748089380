"""Fixtures of the storage tests: one suite over every store."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from locas_storage import FileKeyProvider, InMemoryStore, MemoryStore, SqlMemoryStore, new_key_file
from tests.postgres_server import PostgresServer

POSTGRESQL = "postgresql"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """A file with one key."""
    new_key_file(tmp_path / "keys")
    return tmp_path / "keys"


@pytest.fixture(scope="session")
def file_with_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file whose tables are made and hold nothing, to be copied: making them takes longer than a case."""
    path = tmp_path_factory.mktemp("tables") / "locas.db"
    with closing(SqlMemoryStore(f"sqlite:///{path}")) as opened:
        assert opened.users() == []
    return path


@pytest.fixture(scope="session")
def database_with_tables(postgres_server: PostgresServer) -> str:
    """Name of a PostgreSQL database whose tables are made and hold nothing, to be copied."""
    url = postgres_server.new_database()
    with closing(SqlMemoryStore(url)) as opened:
        assert opened.users() == []
    return postgres_server.name_of(url)


@pytest.fixture
def copied_database(postgres_server: PostgresServer, database_with_tables: str) -> Iterator[str]:
    """URL of a copy of it, which goes with the test."""
    url = postgres_server.new_database("TEMPLATE", database_with_tables)
    yield url
    postgres_server.drop(url)


@pytest.fixture(params=["sqlite-file", "sqlite-memory", "sqlite-encrypted", POSTGRESQL, "dict"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, key_file: Path, file_with_tables: Path
) -> Iterator[MemoryStore]:
    def of_file() -> MemoryStore:
        shutil.copyfile(file_with_tables, tmp_path / "locas.db")
        return SqlMemoryStore(f"sqlite:///{tmp_path / 'locas.db'}")

    made: dict[str, Callable[[], MemoryStore]] = {
        "sqlite-file": of_file,
        "sqlite-memory": lambda: SqlMemoryStore("sqlite://"),
        "sqlite-encrypted": lambda: SqlMemoryStore("sqlite://", key_provider=FileKeyProvider(key_file)),
        POSTGRESQL: lambda: SqlMemoryStore(request.getfixturevalue("copied_database")),
        "dict": InMemoryStore,
    }
    opened = made[request.param]()
    yield opened
    opened.close()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'locas.db'}"


@pytest.fixture(params=["sqlite-file", POSTGRESQL])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database that several stores can open."""
    return (
        str(request.getfixturevalue("postgres_url"))
        if request.param == POSTGRESQL
        else f"sqlite:///{tmp_path / 'locas.db'}"
    )
