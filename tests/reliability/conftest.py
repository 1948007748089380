"""The sizes of the gates, in one place, and the record of what they found.

`make test` runs the quick form; the environment variable RELIABILITY=full, set by `make reliability`, the full one.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.reliability.places import make_place  # noqa: F401  a fixture
from tests.reliability.process_pool import ProcessPool, a_process_pool

FORM = os.environ.get("RELIABILITY", "quick")
RECORD = Path(__file__).parents[2] / "build" / ("reliability.json" if FORM == "full" else f"reliability-{FORM}.json")
Record = Callable[..., None]
"""`record("name of a gate", figure=1, ...)` keeps the figures of a gate; the same name again replaces them."""


@dataclass(frozen=True)
class Sizes:
    """How much each gate does.

    Attributes:
        kill_points: processes killed per database.
        pauses: lease holders stopped past their lease, per database.
        server_stops: immediate stops of a PostgreSQL server under writers.
        failovers: primaries killed under writers, their standby promoted.
        append_seconds: how long threads append while workers are killed, per database.
        append_threads: how many threads append.
        canary_batches: batches of 64 users whose logits are compared with each user's own.
        decode_steps: steps of batched decoding compared likewise.
        reply_steps: steps of replies through the agent.
        cancels: cancelled calls per driver.
        longest_wait_seconds: until the caller of a cancelled call goes on; in the quick form no more than tells a stall
            from a busy machine.
        swapped_payloads: encrypted payloads of which each pair is swapped.
        full_disk_calls: writes to a store whose disk fills up.
        mutated_payloads: damaged payloads given to the loader.
        mutated_rows: damaged rows given to the store.
        machine_runs: runs of the state machine per store.
        machine_steps: steps of each of them.
        erased_users: users erased per database, beside as many who stay.
        failing_tables: tables that refuse what is written, one after the other, while canaries are looked for.
        served_users: people who talk with a server.
        served_at_once: of them at the same time.
        served_seconds: how long they talk.
        idle_connections: beside them.
        server_kills: servers killed under people who talk.
        database_stops: immediate stops of the PostgreSQL server below a server.
        served_refusals: answers of a server without room on its disk.
        ray_worker_kills: workers killed per database, on Ray.
        ray_replica_kills: replicas killed under people who talk, on Ray.
    """

    kill_points: int
    pauses: int
    server_stops: int
    failovers: int
    append_seconds: float
    append_threads: int
    canary_batches: int
    decode_steps: int
    reply_steps: int
    cancels: int
    longest_wait_seconds: float
    swapped_payloads: int
    full_disk_calls: int
    mutated_payloads: int
    mutated_rows: int
    machine_runs: int
    machine_steps: int
    erased_users: int
    failing_tables: int
    served_users: int
    served_at_once: int
    served_seconds: float
    idle_connections: int
    server_kills: int
    database_stops: int
    served_refusals: int
    ray_worker_kills: int
    ray_replica_kills: int


FORMS = {
    "quick": Sizes(
        kill_points=18,
        pauses=4,
        server_stops=2,
        failovers=1,
        append_seconds=4.0,
        append_threads=64,
        canary_batches=20,
        decode_steps=50,
        reply_steps=20,
        cancels=40,
        longest_wait_seconds=15.0,
        swapped_payloads=20,
        full_disk_calls=150,
        mutated_payloads=1_000,
        mutated_rows=100,
        machine_runs=5,
        machine_steps=20,
        erased_users=2,
        failing_tables=1,
        served_users=20,
        served_at_once=10,
        served_seconds=3.0,
        idle_connections=1_000,
        server_kills=1,
        database_stops=1,
        served_refusals=20,
        ray_worker_kills=0,
        ray_replica_kills=0,
    ),
    "full": Sizes(
        kill_points=204,
        pauses=200,
        server_stops=20,
        failovers=10,
        append_seconds=600.0,
        append_threads=64,
        canary_batches=1_000,
        decode_steps=10_000,
        reply_steps=1_000,
        cancels=1_000,
        longest_wait_seconds=1.0,
        swapped_payloads=100,
        full_disk_calls=3_000,
        mutated_payloads=100_000,
        mutated_rows=100_000,
        machine_runs=200,
        machine_steps=50,
        erased_users=64,
        failing_tables=8,
        served_users=200,
        served_at_once=20,
        served_seconds=600.0,
        idle_connections=1_000,
        server_kills=20,
        database_stops=10,
        served_refusals=1_000,
        ray_worker_kills=10,
        ray_replica_kills=5,
    ),
}


@pytest.fixture(scope="session")
def sizes() -> Sizes:
    """How much each gate does in this run."""
    return FORMS[FORM]


@pytest.fixture
def record() -> Iterator[Record]:
    """Keep the figures of a gate that passed, with its form, date and seconds, in `build/`."""
    started = time.monotonic()
    found: dict[str, dict[str, object]] = {}

    def keep(gate: str, **figures: object) -> None:
        now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        found[gate] = {"form": FORM, "at": now, "seconds": round(time.monotonic() - started, 1), **figures}

    yield keep
    if found:
        _merge(found)


@pytest.fixture(scope="session")
def process_pool() -> Iterator[ProcessPool]:
    """A process that forks the processes to be killed."""
    with a_process_pool() as made:
        yield made


def _merge(found: dict[str, dict[str, object]]) -> None:
    RECORD.parent.mkdir(exist_ok=True)
    with RECORD.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # another worker of pytest may be writing its own
        file.seek(0)
        kept = json.loads(file.read() or "{}") | found
        file.truncate(0)
        json.dump(kept, file, indent=2, sort_keys=True)
        file.write("\n")
