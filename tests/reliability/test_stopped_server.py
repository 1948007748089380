"""A PostgreSQL server that is stopped at once, again and again, under writers: what it acknowledged is kept, once.

An immediate stop ends the server's processes as a crash does; on its start it recovers from its log. The machine goes
on.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count

import pytest

from locas_storage import SqlMemoryStore, StoreUnavailable, UserKey
from tests.postgres_server import PostgresServer
from tests.reliability.conftest import Record, Sizes
from tests.reliability.places import wait_for
from tests.reliability.writers import Kept, Writers, kept_of

WRITERS = 16
USERS = [UserKey("default", f"user {number}") for number in range(8)]
TURNS_BETWEEN = 60
"""Least turns acknowledged between two stops."""
TRIES = 5
"""Stops in which a server that writes late is to lose something once."""


@pytest.fixture
def server(postgres_server: PostgresServer) -> Iterator[PostgresServer]:
    """A server of its own, with its log forced to the disk, and written late unless a commit waits for it.

    The shared one is asked for so that a machine without PostgreSQL skips or fails in one way.
    """
    made = PostgresServer("wal_writer_delay=10s")
    try:
        made.start()
        yield made
    finally:
        made.remove()


def stopped_under_writers(
    server: PostgresServer,
    stops: int,
    *,
    options: str = "",
    with_keys: bool = True,
    fault_point: Callable[[str], None] = lambda _: None,
) -> tuple[Kept, Writers, list[str]]:
    """Stop a server so often under writers.

    Return what is kept of what it acknowledged, the writers, and the faults.
    """
    rng = random.Random(2026)
    url = server.new_database() + options
    with closing(SqlMemoryStore(url, fault_point=fault_point)) as store:
        store.users()
        with Writers(store, USERS, WRITERS, with_keys) as writers:
            for _ in range(stops):
                before = writers.said_so_far()
                wait_for(lambda before=before: writers.said_so_far() >= before + TURNS_BETWEEN or writers.errors)
                time.sleep(rng.random() * 0.2)
                server.stop("immediate")
                server.start()
        assert writers.errors == []
    with closing(SqlMemoryStore(url)) as store:
        return kept_of(store, writers.acknowledged), writers, [fault.what for fault in store.verify().faults]


def unheard(every: int) -> Callable[[str], None]:
    """Return a fault point at which the connection breaks after a commit, so that its writer does not hear of it."""
    numbers = count(1)

    def point(name: str) -> None:
        if name == "append.after_commit" and next(numbers) % every == 0:
            raise StoreUnavailable("the answer is lost") from ConnectionError()

    return point


def test_stops_lose_nothing_acknowledged(server: PostgresServer, sizes: Sizes, record: Record) -> None:
    kept, writers, faults = stopped_under_writers(server, sizes.server_stops, fault_point=unheard(every=20))
    assert (kept.lost, kept.doubled, kept.gaps, faults) == (0, 0, 0, [])
    unheard_of = writers.retried["ConnectionError"]
    assert 0 < unheard_of < writers.retried.total()
    record(
        "immediate stops, postgresql",
        stops=sizes.server_stops,
        writers=WRITERS,
        acknowledged=kept.acknowledged,
        lost=0,
        doubled=0,
        gaps=0,
        sent_again_after_an_error=writers.retried.total(),
        answers_lost_after_the_commit=unheard_of,
        faults=0,
    )


def test_gate_sees_a_server_that_acknowledges_before_it_writes(server: PostgresServer) -> None:
    for _ in range(TRIES):  # on a machine with much else to do a stop may come just after the log was written
        kept, _, _ = stopped_under_writers(server, 1, options="&options=-c%20synchronous_commit%3Doff")
        if kept.lost:
            break
    assert kept.lost > 0


def test_gate_sees_a_retry_without_a_key(postgres_url: str) -> None:
    with closing(SqlMemoryStore(postgres_url, fault_point=unheard(every=5))) as store:
        store.users()
        with Writers(store, USERS, 2, with_keys=False) as writers:
            wait_for(lambda: writers.said_so_far() > 20 or writers.errors)
        assert kept_of(store, writers.acknowledged).doubled > 0
