"""Appends beside plain SQLAlchemy inserts of the same rows.

Both sides write one turn per transaction, on one thread, into tables of the same schema on the same disk and with the
same durability: SQLite in WAL mode with synchronous=FULL, PostgreSQL with its default settings (fsync and
synchronous_commit on). The plain side is given ready rows and an engine as `create_engine` makes it: it computes no
digest, locks no user, numbers nothing and checks no key. Time is that of the clock on the wall, since waiting for the
disk is part of an append, less the time in which other programs had the processor. An append leaves the index of words
to the next search, so the turn's row is all it adds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, insert, select

from locas_agent.benchmarks.bench import Bench
from locas_agent.benchmarks.journals import text
from locas_agent.benchmarks.measuring import Goal, Row
from locas_storage import SqlMemoryStore, Turn, TurnDraft, UserKey, new_item_id, upgrade_schema
from locas_storage.encryption.envelope import CLEAR
from locas_storage.sql.tables import rows
from locas_storage.sql.tables.schema import turn

ADA = UserKey("default", "ada")
ROUNDS, TURNS = 15, 100
"""Rounds, and turns appended by each side in a round, one transaction each."""
WORDS = 25
_SCHEDULER = Path("/proc/thread-self/schedstat")
Act = Callable[[TurnDraft], None]

APPEND = Goal(
    "append",
    "one turn of 25 words per transaction into SQLite; peer: SQLAlchemy inserts of the rows an append adds",
    "turns per second",
    "ours/peer",
    0.7,
    0.9,
)


def append(bench: Bench) -> list[Row]:
    """Measure the row."""
    rounds, turns = bench.rounds(ROUNDS), 10 if bench.is_quick else TURNS
    return [compare(APPEND, lambda: f"sqlite:///{bench.folder / new_item_id()}.db", rounds=rounds, turns=turns)]


def compare(
    goal: Goal, new_url: Callable[[], str], *, rounds: int = ROUNDS, turns: int = TURNS, with_key: bool = False
) -> Row:
    """Append and insert in turn.

    Args:
        goal: the row to fill.
        new_url: makes a database and returns its URL.
        rounds: rounds that count; one before them fills caches.
        turns: of each side in a round.
        with_key: turns bring an idempotency key of their own.

    Raises:
        RuntimeError: a side did not keep every turn.
    """
    ours, plain = Ours(new_url()), Plain(new_url())
    fast, peer = list[float](), list[float]()
    with closing(ours.store):
        for number in range(rounds + 1):
            drafts = [_draft(number * turns + place, with_key=with_key) for place in range(turns)]
            plain.prepare(drafts)
            for act, rates in ((ours, fast), (plain, peer)) if number % 2 else ((plain, peer), (ours, fast)):
                rates.append(_rate(act, drafts))
        if not len(ours.store.turns(ADA)) == plain.count() - 1 == (rounds + 1) * turns:
            raise RuntimeError("a side did not keep every turn: nothing was measured")
    return goal.row(fast[1:], peer[1:])


class Ours:
    """Appends through the store."""

    def __init__(self, url: str) -> None:
        self.store = SqlMemoryStore(url)

    def __call__(self, one: TurnDraft) -> None:
        """Append one turn."""
        self.store.append(ADA, [one])


class Plain:
    """Inserts of rows that were made before the clock runs."""

    def __init__(self, url: str) -> None:
        upgrade_schema(url)
        with closing(SqlMemoryStore(url)) as store:  # the user's row, which foreign keys ask for
            (self._like,) = store.append(ADA, [TurnDraft("user", "hello")])
        self._engine = durable(create_engine(url))
        self._seq = 1
        self._ready: list[dict[str, Any]] = []

    def prepare(self, drafts: Sequence[TurnDraft]) -> None:
        """Make the rows of the next drafts."""
        self._ready = []
        for one in drafts:
            self._seq += 1
            made = Turn(
                self._seq,
                one.idempotency_key or new_item_id(),
                one.role,
                one.content,
                None,
                None,
                self._like.at,
                "user",
                32,
                self._like.at,
            )
            self._ready.append(rows.turn_values(ADA, made, CLEAR))
        self._ready.reverse()

    def __call__(self, one: TurnDraft) -> None:
        """Insert the next ready row in a transaction of its own."""
        row = self._ready.pop()
        with self._engine.begin() as connection:
            connection.execute(insert(turn), row)

    def count(self) -> int:
        """Return how many turns there are."""
        with self._engine.connect() as connection:
            return len(connection.scalars(select(turn.c.seq)).all())


def durable(engine: Engine) -> Engine:
    """Give an SQLite engine the durability that the store has; PostgreSQL's default is that already."""
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def _connect(connection: Any, _: object) -> None:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")

    return engine


def _rate(act: Act, drafts: Sequence[TurnDraft]) -> float:
    """Acts per second, of the time that was not spent waiting for a processor that others used."""
    started, waited = time.perf_counter(), _waited_seconds()
    for one in drafts:
        act(one)
    return len(drafts) / (time.perf_counter() - started - (_waited_seconds() - waited))


def _waited_seconds() -> float:
    """How long this thread has been ready to run and did not.

    Linux counts it, elsewhere it is 0 and the machine had better be idle.
    """
    return int(_SCHEDULER.read_text(encoding="ascii").split()[1]) / 1e9 if _SCHEDULER.exists() else 0.0


def _draft(number: int, *, with_key: bool) -> TurnDraft:
    return TurnDraft(
        "user", text(number, words=WORDS), token_count=32, idempotency_key=f"key {number}" if with_key else None
    )
