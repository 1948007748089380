"""The server while its database is stopped, and started again: a clear answer meanwhile, and nothing lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from openai import APIStatusError

from locas_storage import UserKey, open_store
from tests.integration.server_process import serving
from tests.postgres_server import PostgresServer

ADA = UserKey("default", "ada")


@pytest.fixture
def database(postgres_server: PostgresServer) -> Iterator[PostgresServer]:
    """A server of its own; the shared one is asked for so that a machine without PostgreSQL skips or fails as ever."""
    server = PostgresServer.in_memory()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.mark.slow
def test_database_may_be_gone_and_come_back(database: PostgresServer, tmp_path: Path, backbone_folder: str) -> None:
    url = database.new_database()
    options = ("--backbone", backbone_folder, "--dtype", "float32")
    with serving(url, tmp_path / "log", *options) as server, server.client(server.key()) as client:
        model = client.models.list().data[0].id

        def ask(text: str) -> str | None:
            made = client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": text}], user="ada", max_tokens=8
            )
            return made.choices[0].message.content

        ask("One.")
        database.stop("immediate")  # as a crash
        with pytest.raises(APIStatusError) as caught:
            ask("Two.")
        assert (caught.value.status_code, caught.value.code) == (503, "store_unavailable")
        assert str(database.folder) not in str(caught.value)
        assert server.get("/health")[0] == 503
        database.start()
        ask("Two.")
        assert server.get("/health")[0] == 200
        with closing(open_store(url)) as store:
            assert [turn.content for turn in store.turns(ADA) if turn.role == "user"] == ["One.", "Two."]
            assert store.verify().is_sound
        assert server.stop() == 0
