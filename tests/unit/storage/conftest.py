"""Fixtures of the storage tests: one suite over every store.

Knows nothing of torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from locas_storage import InMemoryStore, MemoryStore, SqlMemoryStore


@pytest.fixture(params=["sqlite-file", "sqlite-memory", "dict"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MemoryStore]:
    made: dict[str, Callable[[], MemoryStore]] = {
        "sqlite-file": lambda: SqlMemoryStore(f"sqlite:///{tmp_path / 'locas.db'}"),
        "sqlite-memory": lambda: SqlMemoryStore("sqlite://"),
        "dict": InMemoryStore,
    }
    opened = made[request.param]()
    yield opened
    opened.close()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'locas.db'}"
