"""The database below a server is stopped under clients and started again: a clear answer meanwhile, nothing lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from locas_storage import open_store
from tests.integration.server_process import serving
from tests.postgres_server import PostgresServer
from tests.reliability.conftest import Record, Sizes
from tests.reliability.places import wait_for
from tests.reliability.served.people import kept_of, people
from tests.reliability.served.talking import Talk
from tests.reliability.served.test_killed_server import AT_ONCE, progress

pytestmark = pytest.mark.rounding

AWAY = {503, "store_unavailable"}
"""What clients are told: by the status, or where a stream has begun by an event."""


@pytest.fixture
def database(postgres_server: PostgresServer) -> Iterator[PostgresServer]:
    """A server of its own; the shared one is asked for so that a machine without PostgreSQL skips or fails as ever."""
    server = PostgresServer("fsync=off")
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_database_may_be_gone_and_come_back(
    database: PostgresServer, tmp_path: Path, sizes: Sizes, record: Record
) -> None:
    url, everybody = database.new_database(), people(8)
    with closing(open_store(url)) as store:
        key = store.api_keys.new("default").secret
    with serving(url, tmp_path / "log", "--no-learn") as server:
        with Talk(server.port, key, "tiny", everybody, AT_ONCE) as talk:
            for _ in range(sizes.database_stops):
                wait_for(progress(talk))
                before = sum(talk.outcomes[one] for one in AWAY)
                database.stop("immediate")  # as a crash
                wait_for(lambda before=before: sum(talk.outcomes[one] for one in AWAY) > before or talk.errors)
                assert server.get("/health")[0] == 503
                database.start()
                wait_for(progress(talk))
            assert server.get("/health")[0] == 200
        assert server.stop() == 0
        log = server.log.read_text()
    with closing(open_store(url)) as store:
        kept, faults = kept_of(store, everybody), store.verify().faults
    assert set(talk.outcomes) <= {200, 429, *AWAY}
    assert (kept.lost, kept.doubled, faults) == (0, 0, ())
    assert not any(text in log for text in ("Traceback", str(database.folder), everybody[0].number))
    record(
        "database away, postgresql",
        stops=sizes.database_stops,
        at_once=AT_ONCE,
        answers=talk.answers,
        told_that_it_is_away=sum(talk.outcomes[one] for one in AWAY),
        turns=kept.turns,
        lost=0,
        doubled=0,
        faults=0,
    )
