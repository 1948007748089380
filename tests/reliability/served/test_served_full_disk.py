"""A server whose database has no room left: clients are told so, what they were told before is kept, and it goes on.

SQLite's own limit of pages makes its disk full; the sockets are real, the server is in this process.
"""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from openai import APIStatusError, OpenAI
from sqlalchemy import event

from locas_agent import AgentMemory
from locas_storage import SqlMemoryStore
from tests.reliability.conftest import Record, Sizes
from tests.reliability.places import wait_for
from tests.reliability.served.people import kept_of, people
from tests.reliability.served.talking import Talk
from tests.unit.server.conftest import MODEL, Serve, agent, serve, with_tools  # noqa: F401  fixtures

pytestmark = pytest.mark.rounding

FULL = {507, "storage_full"}
"""What clients are told: by the status, or where a stream has begun by an event."""
FILLER = "As I said, and will say again. " * 30
"""Makes a turn fill a quarter of a page."""
NO_LIMIT = 1 << 30
SECONDS_FOR_ALL = 1200
"""A thousand refusals take a minute, and many where others use the machine too."""


def keep_telling(client: OpenAI, asked: dict[str, Any]) -> None:
    """Begin conversations; some may still fit into pages that are there."""
    for number in range(50):
        client.chat.completions.create(**asked, extra_headers={"X-Locas-Conversation": f"{number}"})


def test_full_disk_is_told_and_nothing_is_kept_by_halves(
    serve: Serve,  # noqa: F811
    agent: AgentMemory,  # noqa: F811
    sizes: Sizes,
    record: Record,
) -> None:
    store, most = agent.store, NO_LIMIT
    assert isinstance(store, SqlMemoryStore)

    @event.listens_for(store.database.engine, "checkout")
    def limit(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {most}")  # never less than there are

    served, everybody = serve(), people(6)
    client = served.client()
    with Talk(served.port, served.secret, MODEL, everybody, at_once=4, filler=FILLER) as talk:
        wait_for(lambda: talk.answers >= 8 or talk.errors)
        most = 1
        wait_for(
            lambda: sum(talk.outcomes[one] for one in FULL) >= sizes.served_refusals or talk.errors,
            seconds=SECONDS_FOR_ALL,
        )
        asked: dict[str, Any] = {
            "model": MODEL,
            "messages": [{"role": "user", "content": FILLER}],
            "user": "somebody else",
        }
        with pytest.raises(APIStatusError) as caught:
            keep_telling(client, asked)
        assert (caught.value.status_code, caught.value.code) == (507, "storage_full")
        assert "no room left" in str(caught.value)
        assert client.chat.completions.create(**asked, store=False).choices  # reading and answering go on
        most = NO_LIMIT
        before = talk.answers
        wait_for(lambda: talk.answers >= before + 8 or talk.errors)
    kept = kept_of(store, everybody)
    assert set(talk.outcomes) <= {200, 429, *FULL}
    assert (kept.lost, kept.doubled, store.verify().faults) == (0, 0, ())
    record(
        "disk full, a server on SQLite at its limit of pages",
        answers=talk.answers,
        refused=sum(talk.outcomes[one] for one in FULL),
        turns=kept.turns,
        lost=0,
        doubled=0,
        faults=0,
    )
