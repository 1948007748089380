"""Appends beside plain SQLAlchemy inserts of the same rows, in one run: `python -m benchmarks.appends --json -`.

Knows nothing of models. Both sides write one turn per transaction, on one thread, into tables of the same schema on the same disk and with the same
durability: SQLite in WAL mode with synchronous=FULL, PostgreSQL with its default settings (fsync and synchronous_commit on). The plain side is
given ready rows and an engine as `create_engine` makes it: it computes no digest, cuts no words, locks no user, numbers nothing and checks no key.

Rounds of both sides alternate, first one first, then the other. A case is the median over the rounds of (append's rate / plain rate); its spread is
the least and the greatest of them. Peers: "turn" inserts the turn's row alone; "turn and words" also the row by which it is found, which is all that
an append leaves but SQLite's own index over these words.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import ARRAY, Engine, Text, bindparam, create_engine, event, func, insert, select

from locas_storage import SqlMemoryStore, Turn, TurnDraft, UserKey, new_item_id, rows, upgrade_schema, vault
from locas_storage.schema import search, turn
from locas_storage.words import indexed_words
from tests.postgres_server import PostgresServer, binaries

LIMIT, TARGET = 0.7, 0.85
"""Least ratio that holds, and the one to reach."""
ADA = UserKey("default", "ada")
WORDS = "my dog rex likes the long walk along the river in the evening before we eat and then sleeps beside the warm oven until the morning".split()
Act = Callable[[TurnDraft], None]


def draft(number: int, *, with_key: bool) -> TurnDraft:
    """Return a turn of 25 words, the next one always another."""
    said = [WORDS[(number * 7 + place * (1 + number % 3)) % len(WORDS)] for place in range(24)]
    return TurnDraft("user", " ".join([f"w{number}", *said]), token_count=32, key=f"key {number}" if with_key else None)


class Ours:
    """Appends through the store."""

    def __init__(self, url: str) -> None:
        self.store = SqlMemoryStore(url)

    def __call__(self, one: TurnDraft) -> None:
        """Append one turn."""
        self.store.append(ADA, [one])


class Plain:
    """Inserts of rows that were made before the clock runs."""

    def __init__(self, url: str, *, with_words: bool) -> None:
        upgrade_schema(url)
        with closing(SqlMemoryStore(url)) as store:  # the user's row, which foreign keys ask for
            (self._like,) = store.append(ADA, [TurnDraft("user", "hello")])
        self._engine = durable(create_engine(url))
        self._with_words = with_words
        self._is_sqlite = self._engine.dialect.name == "sqlite"
        listed = func.array_to_tsvector(bindparam("listed", type_=ARRAY(Text)))
        self._insert_words = insert(search) if self._is_sqlite else insert(search).values(words=listed)
        self._seq = 1
        self._ready: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def prepare(self, drafts: Sequence[TurnDraft]) -> None:
        """Make the rows of the next drafts."""
        self._ready = []
        for one in drafts:
            self._seq += 1
            made = Turn(self._seq, one.key or new_item_id(), one.role, one.content, None, None, self._like.at, "user", 32, self._like.at)
            found = indexed_words(one.content)
            listed = {"words": " ".join(found)} if self._is_sqlite else {"listed": found}
            self._ready.append((rows.turn_values(ADA, made, vault.CLEAR), rows.owner(ADA) | {"seq": self._seq} | listed))
        self._ready.reverse()

    def __call__(self, one: TurnDraft) -> None:
        """Insert the next ready rows in a transaction of their own."""
        turn_row, words_row = self._ready.pop()
        with self._engine.begin() as connection:
            connection.execute(insert(turn), turn_row)
            if self._with_words:
                connection.execute(self._insert_words, words_row)

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


def timed(act: Act, drafts: Sequence[TurnDraft]) -> float:
    """Return acts per second."""
    started = time.perf_counter()
    for one in drafts:
        act(one)
    return len(drafts) / (time.perf_counter() - started)


def compare(new_url: Callable[[], str], *, database: str, rounds: int, turns: int, with_words: bool, with_key: bool) -> dict[str, Any]:
    """Run one case; return it in the form of every benchmark."""
    ours, plain = Ours(new_url()), Plain(new_url(), with_words=with_words)
    rates: list[tuple[float, float]] = []
    with closing(ours.store):
        for number in range(rounds + 1):
            drafts = [draft(number * turns + place, with_key=with_key) for place in range(turns)]
            plain.prepare(drafts)
            if number % 2:
                fast, peer = timed(ours, drafts), timed(plain, drafts)
            else:
                peer, fast = timed(plain, drafts), timed(ours, drafts)
            if number:  # the first round fills caches
                rates.append((fast, peer))
        assert len(ours.store.turns(ADA)) == plain.count() - 1 == (rounds + 1) * turns
    ratios = [fast / peer for fast, peer in rates]
    ratio = statistics.median(ratios)
    peer_name = "turn and words" if with_words else "turn"
    return {
        "name": f"appends {database}, {'key given' if with_key else 'fresh key'}, beside {peer_name}",
        "ours": round(statistics.median(fast for fast, _ in rates), 1), "peer": round(statistics.median(peer for _, peer in rates), 1),
        "ratio": round(ratio, 3), "unit": "turns per second", "limit": LIMIT, "target": TARGET, "holds": ratio >= LIMIT,
        "spread": [round(min(ratios), 3), round(max(ratios), 3)],
    }  # fmt: skip


@contextmanager
def databases(folder: Path, *, with_postgres: bool) -> Iterator[dict[str, Callable[[], str]]]:
    """Yield, for each database, what makes a new one; the PostgreSQL server is ours and syncs to the disk."""
    places: dict[str, Callable[[], str]] = {"sqlite": lambda: f"sqlite:///{folder / new_item_id()}.db"}
    if not with_postgres:
        yield places
        return
    server = PostgresServer()
    try:
        server.start()
        yield places | {"postgresql": server.new_database}
    finally:
        server.remove()


def facts(rounds: int, turns: int) -> dict[str, Any]:
    """Return what the figures were measured on."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False).stdout.strip()
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", "python": platform.python_version(),
        "sqlalchemy": sqlalchemy.__version__, "commit": commit, "rounds": rounds, "turns_per_round": turns,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description="Appends beside plain inserts of the same rows.")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of each side, alternating")
    parser.add_argument("--turns", type=int, default=100, help="turns of each round, one transaction each")
    parser.add_argument("--json", metavar="PATH", help="write the list of cases there; - is standard output")
    chosen = parser.parse_args()
    if binaries() is None:
        print("no PostgreSQL server on this machine (apt-get install postgresql): SQLite alone is measured", file=sys.stderr)
    cases = []
    with tempfile.TemporaryDirectory(prefix="locas-bench-") as folder, databases(Path(folder), with_postgres=binaries() is not None) as places:
        for database, new_url in places.items():
            for with_words, with_key in ((False, False), (True, False), (False, True), (True, True)):
                case = compare(new_url, database=database, rounds=chosen.rounds, turns=chosen.turns, with_words=with_words, with_key=with_key)
                print(f"{case['name']}: {case['ratio']} of {case['peer']}/s, {case['spread'][0]} to {case['spread'][1]}", file=sys.stderr)
                cases.append(case | facts(chosen.rounds, chosen.turns))
    if chosen.json:
        text = json.dumps(cases, indent=1)
        print(text) if chosen.json == "-" else Path(chosen.json).write_text(text + "\n", encoding="utf-8")
    return 0 if all(case["holds"] for case in cases) else 1


if __name__ == "__main__":
    sys.exit(main())
