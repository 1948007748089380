"""The public cases about revisions, over a store that keeps every payload in a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from locas_storage import MemoryStore, SqlMemoryStore
from locas_storage.conformance.retention import *  # noqa: F403  the cases, collected by pytest from here
from locas_storage.conformance.revisions import *  # noqa: F403
from locas_storage.conformance.rollback import *  # noqa: F403


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MemoryStore]:
    opened = SqlMemoryStore(f"sqlite:///{tmp_path / 'locas.db'}", files=str(tmp_path / "payloads"), inline_bytes=0)
    yield opened
    opened.close()
    assert not list((tmp_path / "payloads").rglob("*.part"))
