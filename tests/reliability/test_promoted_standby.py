"""A PostgreSQL primary that is killed under writers, again and again: its standby is promoted, the writers go on.

Commits wait for the standby (`synchronous_standby_names`), so what was acknowledged is there. The old primary comes
back as a copy of the new one.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from locas_storage import SqlMemoryStore, StoreUnavailable, TurnDraft, UserKey
from tests.postgres_server import PostgresServer
from tests.reliability.conftest import Record, Sizes
from tests.reliability.places import wait_for
from tests.reliability.standby_server import ReplicatedServer, a_replicated_server, kill
from tests.reliability.writers import Writers, kept_of

WRITERS = 8
"""Fewer than the store has connections, so that one is left for the worker."""
USERS = [UserKey("default", f"user {number}") for number in range(8)]
TURNS_BETWEEN = 60
"""Least turns acknowledged between two failovers."""


@pytest.fixture(scope="module")
def both(postgres_server: PostgresServer) -> Iterator[ReplicatedServer]:
    """A primary and a standby; the shared server is asked for so that a machine without PostgreSQL skips or fails."""
    with a_replicated_server() as made:
        yield made


@pytest.fixture
def servers(both: ReplicatedServer) -> ReplicatedServer:
    """Both of them alive, whatever the last test did."""
    if not both.standby.is_running():
        both.follow()
    return both


def test_acknowledged_turns_outlive_the_primary(servers: ReplicatedServer, sizes: Sizes, record: Record) -> None:
    rng = random.Random(2026)
    url = servers.new_database()
    pauses = []
    with closing(SqlMemoryStore(url)) as store:
        store.users()
        with Writers(store, USERS, WRITERS) as writers:
            for number in range(sizes.failovers):
                if number:
                    servers.follow()
                _wait_for_turns(writers)
                time.sleep(rng.random() * 0.2)
                lease = store.queue.claim("worker", key=USERS[number % len(USERS)])[0]
                killed = time.monotonic()
                kill(servers.primary)
                servers.promote()
                _wait_for_turns(writers, 1)
                pauses.append(time.monotonic() - killed)
                store.queue.release(lease)  # the promoted server knows whose it is
                _wait_for_turns(writers)
        assert writers.errors == []
    with closing(SqlMemoryStore(url)) as store:
        kept, faults = kept_of(store, writers.acknowledged), [fault.what for fault in store.verify().faults]
    assert (kept.lost, kept.doubled, kept.gaps, faults) == (0, 0, 0, [])
    assert writers.retried.total() > 0
    record(
        "promoted standby, postgresql",
        failovers=sizes.failovers,
        writers=WRITERS,
        acknowledged=kept.acknowledged,
        lost=0,
        doubled=0,
        gaps=0,
        sent_again_after_an_error=writers.retried.total(),
        longest_pause_seconds=round(max(pauses), 2),
        faults=0,
    )


def test_nothing_is_acknowledged_while_the_standby_is_away(servers: ReplicatedServer) -> None:
    told: list[int] = []
    # A statement that hangs ends by its time limit; a commit that waits for the standby must not.
    with closing(SqlMemoryStore(servers.new_database() + "&options=-c%20statement_timeout%3D500")) as store:
        store.append(USERS[0], [TurnDraft("user", "before")])
        servers.standby.stop()
        writer = threading.Thread(
            target=lambda: told.append(store.append(USERS[0], [TurnDraft("user", "meanwhile")])[0].seq)
        )
        writer.start()
        writer.join(2.0)
        assert told == []
        servers.standby.start()
        wait_for(lambda: told == [2])
        writer.join()


def test_gate_sees_commits_that_wait_for_no_standby(servers: ReplicatedServer) -> None:
    url = servers.new_database()
    with closing(SqlMemoryStore(url)) as store:
        store.append(USERS[0], [TurnDraft("user", "before")])
    with closing(SqlMemoryStore(url + "&options=-c%20synchronous_commit%3Dlocal")) as store:
        servers.standby.stop("immediate")
        told = store.append(USERS[0], [TurnDraft("user", "meanwhile")])[0]
        kill(servers.primary)
        servers.standby.start()
        servers.promote()
        assert kept_of(store, {USERS[0]: {"before": 1, "meanwhile": told.seq}}).lost == 1


def test_url_of_both_refuses_while_neither_takes_writes(servers: ReplicatedServer) -> None:
    with closing(SqlMemoryStore(servers.new_database())) as store:
        store.append(USERS[0], [TurnDraft("user", "before")])
        kill(servers.primary)
        with pytest.raises(StoreUnavailable, match="call again with the same keys"):
            store.append(USERS[0], [TurnDraft("user", "meanwhile", idempotency_key="once")])
        servers.promote()
        assert store.append(USERS[0], [TurnDraft("user", "meanwhile", idempotency_key="once")])[0].seq == 2


def _wait_for_turns(writers: Writers, turns: int = TURNS_BETWEEN) -> None:
    before = writers.said_so_far()
    wait_for(lambda: writers.said_so_far() >= before + turns or writers.errors)
