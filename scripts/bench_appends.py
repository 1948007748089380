"""The row `append` of `locas-agent bench` in all its cases, on SQLite and PostgreSQL.

`python -m scripts.bench_appends --json -`.

PostgreSQL needs a server of its own, which the tests know how to start; that is why this is no part of the command.
Cases: keys fresh or given.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from locas_agent.benchmarks.append import APPEND, ROUNDS, TURNS, compare
from locas_agent.cli.output import deliver
from locas_storage import new_item_id
from tests.postgres_server import PostgresServer, binaries


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


def main() -> int:
    parser = argparse.ArgumentParser(description="Appends beside plain inserts of the same rows.")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of each side, alternating")
    parser.add_argument("--turns", type=int, default=TURNS, help="turns of each round, one transaction each")
    parser.add_argument("--json", metavar="PATH", help="write the list of cases there; - is standard output")
    chosen = parser.parse_args()
    if binaries() is None:
        print(
            "no PostgreSQL server on this machine (apt-get install postgresql): SQLite alone is measured",
            file=sys.stderr,
        )
    cases = []
    with (
        tempfile.TemporaryDirectory(prefix="locas-bench-") as folder,
        databases(Path(folder), with_postgres=binaries() is not None) as places,
    ):
        for database, new_url in places.items():
            for with_key in (False, True):
                goal = replace(APPEND, name=f"append {database}, {'key given' if with_key else 'fresh key'}")
                case = compare(goal, new_url, rounds=chosen.rounds, turns=chosen.turns, with_key=with_key)
                print(f"{case.name}: {case.ratio:.3f}, {case.spread[0]:.3f} to {case.spread[1]:.3f}", file=sys.stderr)
                cases.append(case)
    deliver(chosen.json, [case.facts() for case in cases])
    return 0 if all(case.holds for case in cases) else 1


if __name__ == "__main__":
    sys.exit(main())
