"""Time of queue claim, append, search and forget on PostgreSQL at several numbers of users, and the bytes of a turn.

    python -m scripts.load_sizes --users 1000 3000 10000 --turns 50

Fills a server of its own with rows that the database makes of numbers, calls the store on one thread for users drawn
from a seed, and prints the table of `docs/capacity.md`; with `--json -` the figures.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "storage"), str(ROOT / "integrations"), str(ROOT)]

from locas_agent.cli.output import deliver
from locas_storage import SqlMemoryStore, TurnDraft, UserKey
from tests.postgres_server import PostgresServer, binaries
from tests.reliability.places import database_of

WORDS_PER_TURN = 25
FULL_USERS = 1_000_000
"""What the sizes here are a part of."""
OPERATIONS = ("claim", "append", "search", "forget")
_TEXT = f"""(SELECT string_agg('word' || ((u * 7919 + s * 104729 + w * 1299709) % 5000), ' ' ORDER BY w)
    FROM generate_series(1, {WORDS_PER_TURN}) AS w)"""
_NOW = "(extract(epoch FROM now()) * 1000000)::bigint"
_FILL = (
    f"""INSERT INTO lm_subject (tenant_id, subject_id, next_seq, created_at)
    SELECT 'default', 'user ' || u, {{turns}} + 1, {_NOW} FROM generate_series(0, {{users}} - 1) AS u""",
    f"""INSERT INTO lm_turn (tenant_id, subject_id, seq, idem_key, role, content, content_sha256, said_at, token_count,
        created_at)
    SELECT 'default', 'user ' || u, s, md5(u || ' ' || s), 'user', convert_to(t, 'UTF8'), sha256(convert_to(t, 'UTF8')),
        {_NOW}, 40, {_NOW}
    FROM (SELECT u, s, {_TEXT} AS t FROM generate_series(1, {{turns}}) AS s, generate_series(0, {{users}} - 1) AS u)
        AS made""",
    """INSERT INTO lm_search (tenant_id, subject_id, seq, words)
    SELECT tenant_id, subject_id, seq, array_to_tsvector(string_to_array(convert_from(content, 'UTF8'), ' '))
    FROM lm_turn""",
    f"""INSERT INTO lm_job (id, tenant_id, subject_id, kind, to_seq, epoch, run_after)
    SELECT gen_random_uuid(), 'default', 'user ' || u, 'consolidate', {{turns}}, 0, {_NOW} - u
    FROM generate_series(0, {{users}} - 1) AS u""",
    "VACUUM ANALYZE",
)
"""In the order of time, not of users: the turns of one user lie apart, as they do when many talk at once."""


def fill(server: PostgresServer, database: str, users: int, turns: int) -> None:
    """Put users with turns, words and an open job each into a database with empty tables."""
    for statement in _FILL:
        server.psql(database, statement.format(users=users, turns=turns))


def bytes_per_turn(server: PostgresServer, database: str, turns: int) -> dict[str, float]:
    """Return the bytes a turn takes with its indexes, in the journal and in the words."""
    return {
        table: round(int(server.psql(database, f"SELECT pg_total_relation_size('{table}')")) / turns, 1)
        for table in ("lm_turn", "lm_search")
    }


class Size:
    """A database with so many users of so many turns each, and the milliseconds of what was called there."""

    def __init__(self, server: PostgresServer, users: int, turns: int, seed: int) -> None:
        self.users, self.turns = users, turns
        url = server.new_database()
        self.store = SqlMemoryStore(url)
        self.store.users()  # makes the tables
        fill(server, database_of(url), users, turns)
        self.bytes_per_turn = bytes_per_turn(server, database_of(url), users * turns)
        self.took: dict[str, list[float]] = {name: [] for name in OPERATIONS}
        self._rng = random.Random(seed)

    def call(self, name: str, *, counts: bool) -> None:
        """Do one operation for a user drawn at random."""
        key = UserKey("default", f"user {self._rng.randrange(self.users)}")
        started = time.perf_counter()
        if name == "claim":
            self.store.queue.claim("worker")
        elif name == "append":
            draft = TurnDraft("user", f"word1 of {key.user}", token_count=40)
            self.store.append(key, [draft], enqueue=self.turns + 1)
        elif name == "search":
            self.store.search(key, " ".join(f"word{self._rng.randrange(5000)}" for _ in range(5)))
        else:
            self.store.forget(key, [self._rng.randrange(self.turns) + 1])
        if counts:
            self.took[name].append((time.perf_counter() - started) * 1000)

    def figures(self) -> dict[str, Any]:
        """Return what was found."""
        took = {
            name: {"median": round(statistics.median(times), 1), "p95": round(sorted(times)[int(len(times) * 0.95)], 1)}
            for name, times in self.took.items()
        }
        size = {"users": self.users, "turns": self.users * self.turns, "scaled_down_by": FULL_USERS // self.users}
        return size | {"bytes_per_turn": self.bytes_per_turn, "milliseconds": took}


def measured(server: PostgresServer, users: Sequence[int], turns: int, calls: int, seed: int) -> list[dict[str, Any]]:
    """Fill a database of each size, and call each operation at each of them in turn: other work slows all alike."""
    with ExitStack() as stack:
        sizes = [Size(server, one, turns, seed) for one in users]
        for size in sizes:
            stack.callback(size.store.close)
        for name in OPERATIONS:
            for number in range(calls + 1):
                for size in sizes:
                    size.call(name, counts=number > 0)
        return [size.figures() for size in sizes]


def table(sizes: list[dict[str, Any]]) -> str:
    """Return the lines of the table: medians and, behind a slash, 95 of 100."""
    lines = [
        f"| users | turns | scaled down by | {' | '.join(OPERATIONS)} |",
        "|---|---|---|" + "---|" * len(OPERATIONS),
    ]
    for size in sizes:
        shown = [f"{one['median']} / {one['p95']} ms" for one in size["milliseconds"].values()]
        lines.append(f"| {size['users']:,} | {size['turns']:,} | {size['scaled_down_by']:,} | {' | '.join(shown)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Claim, append, search and forget at several sizes of a database.")
    parser.add_argument("--users", type=int, nargs="+", default=[1_000, 3_000, 10_000])
    parser.add_argument("--turns", type=int, default=50, help="of each user")
    parser.add_argument("--calls", type=int, default=100, help="of each operation at each size")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--json", metavar="PATH", help="write the figures there; - is standard output")
    chosen = parser.parse_args()
    if binaries() is None:
        parser.error("no PostgreSQL server on this machine: apt-get install postgresql")
    server = PostgresServer("fsync=off")  # a disk that others use would hide what grows
    try:
        server.start()
        sizes = measured(server, chosen.users, chosen.turns, chosen.calls, chosen.seed)
    finally:
        server.remove()
    print(table(sizes), file=sys.stderr)
    deliver(chosen.json, sizes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
