"""What an append costs on PostgreSQL, and what its one statement for lock, number and time must not lose."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import event
from storage_samples import ADA, say

from locas_storage import SqlMemoryStore, StoreUnavailable, TurnDraft
from locas_storage.sql.database import connections
from tests.postgres_server import PostgresServer


def test_a_turn_takes_one_statement_and_no_more_for_a_key(postgres_url: str) -> None:
    with closing(SqlMemoryStore(postgres_url)) as store:
        say(store, 1)
        said: list[str] = []

        @event.listens_for(store.database.engine, "before_cursor_execute")
        def _count(_connection: object, _cursor: object, statement: str, *_: Any) -> None:
            said.append(statement.split()[0])

        store.append(ADA, [TurnDraft("user", "x")])
        assert said == ["WITH"]
        del said[:]
        store.append(ADA, [TurnDraft("user", "x", idempotency_key="k")])
        assert said == ["WITH"]
        del said[:]
        assert store.append(ADA, [TurnDraft("user", "again", idempotency_key="k")])[0].seq == 3
        assert said == [
            "WITH",
            "UPDATE",
            "SELECT",
        ]  # nothing was inserted: the number is given back, and the turn looked for
        del said[:]
        store.append(ADA, [TurnDraft("user", "y"), TurnDraft("user", "z")])
        assert said == ["UPDATE", "INSERT"]
        assert store.append(ADA, [TurnDraft("user", "next")])[0].seq == 6
        assert store.verify().is_sound


def test_whoever_waits_for_the_lock_reads_the_clock_after_it(store_url: str) -> None:
    waiting = threading.Event()

    def hold(point: str) -> None:
        if point == "append.turns":
            waiting.set()
            time.sleep(0.5)

    with closing(SqlMemoryStore(store_url)) as quick, closing(SqlMemoryStore(store_url, fault_point=hold)) as slow:
        say(quick, 1)
        thread = threading.Thread(target=lambda: say(slow, 1))
        thread.start()
        assert waiting.wait(30)
        say(quick, 1)
        thread.join()
        _, first, second = quick.turns(ADA)
        assert (second.created_at - first.created_at).total_seconds() > 0.3
        assert second.at == second.created_at


def test_connection_that_was_ended_is_noticed_without_asking(
    postgres_server: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(SqlMemoryStore(postgres_url)) as store:
        say(store, 1)
        postgres_server.cut(postgres_url)
        say(store, 1)
        monkeypatch.setattr(connections, "_has_word", lambda _: False)
        postgres_server.cut(postgres_url)
        with pytest.raises(StoreUnavailable):
            say(store, 1)
        say(store, 1)
        monkeypatch.setattr(connections, "_RESTED_SECONDS", 0.0)  # one that rested is asked, whatever its socket says
        postgres_server.cut(postgres_url)
        say(store, 1)
        assert [turn.seq for turn in store.turns(ADA)] == [1, 2, 3, 4]
