"""Fixtures of the storage tests: one suite over every store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from locas_storage import FileKeyProvider, InMemoryStore, MemoryStore, SqlMemoryStore, new_key_file

POSTGRESQL = "postgresql"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """A file with one key."""
    new_key_file(tmp_path / "keys")
    return tmp_path / "keys"


@pytest.fixture(params=["sqlite-file", "sqlite-memory", "sqlite-encrypted", POSTGRESQL, "dict"])
def store(request: pytest.FixtureRequest, tmp_path: Path, key_file: Path) -> Iterator[MemoryStore]:
    made: dict[str, Callable[[], MemoryStore]] = {
        "sqlite-file": lambda: SqlMemoryStore(f"sqlite:///{tmp_path / 'locas.db'}"),
        "sqlite-memory": lambda: SqlMemoryStore("sqlite://"),
        "sqlite-encrypted": lambda: SqlMemoryStore("sqlite://", key_provider=FileKeyProvider(key_file)),
        POSTGRESQL: lambda: SqlMemoryStore(request.getfixturevalue("postgres_url")),
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
