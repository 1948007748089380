"""Owns `Place`, a database with a folder of files where a gate happens, and what is looked for in it from outside."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from locas_storage import Lease, SqlMemoryStore, UserKey
from tests.postgres_server import PostgresServer
from tests.reliability.crash_targets import open_store

DATABASES = ("sqlite", "postgresql")
PATIENCE_SECONDS = 60.0
"""Longest wait for what has to happen; only a broken store, or a very busy machine, comes near it."""


@dataclass(frozen=True)
class Place:
    """Where a gate happens.

    Attributes:
        url: of the database.
        files: the folder of large payloads.
        database_file: of SQLite, None of PostgreSQL.
        is_quiet: tells whether the server has noticed the end of every client.
    """

    url: str
    files: Path
    database_file: Path | None
    is_quiet: Callable[[], bool]

    def open(self) -> SqlMemoryStore:
        """Open a store of one's own, as a process that starts anew does."""
        return open_store(self.url, str(self.files))

    def settle(self) -> None:
        """Wait until nothing is going on for a client that is gone."""
        wait_for(self.is_quiet)

    def holds(self, key: UserKey, texts: Iterable[bytes]) -> bool:
        """Tell whether any of these bytes is left in the user's files, or on SQLite anywhere in the database."""
        paths = list((self.files / key.digest).iterdir()) if (self.files / key.digest).exists() else []
        if self.database_file is not None:
            paths += self.database_file.parent.glob(f"{self.database_file.name}*")
        kept = [path.read_bytes() for path in paths]
        return any(text in data for text in texts for data in kept)


def wait_for(happened: Callable[[], object], *, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until something is so."""
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)


def claim_soon(store: SqlMemoryStore, key: UserKey) -> Lease:
    """Claim the job of a user as soon as the lease of its former holder has run out."""
    leases: list[Lease] = []
    wait_for(lambda: leases.extend(store.queue.claim("survivor", key=key)) or leases)
    return leases[0]


@pytest.fixture
def make_place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Place]:
    """Return a function that makes a place on an empty database of a kind, one of `DATABASES`."""

    def make(kind: str) -> Place:
        if kind == "sqlite":
            path = tmp_path / "locas.db"
            return Place(f"sqlite:///{path}", tmp_path / "payloads", path, lambda: True)
        server: PostgresServer = request.getfixturevalue("postgres_server")
        url = server.new_database()
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        return Place(url, tmp_path / "payloads", None, lambda: server.psql(database_of(url), others) == "0")

    return make


def database_of(url: str) -> str:
    return url.partition("@/")[2].partition("?")[0]
