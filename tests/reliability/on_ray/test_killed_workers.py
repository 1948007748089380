"""Workers on a real Ray: killed in the middle of a batch, they lose nothing and nothing is learnt twice; two do twice.

The learner sleeps where another computes, so that two workers are two processors whatever machine this is: what is seen
is that nothing but the learning takes time, and that nobody waits for somebody else's.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from itertools import count
from threading import Event

import pytest

from locas_agent import WorkSummary
from locas_storage import SqlMemoryStore, TurnDraft, UserKey
from tests.reliability.conftest import Record, Sizes
from tests.reliability.on_ray.clusters import local_cluster
from tests.reliability.on_ray.processes import holders
from tests.reliability.on_ray.sleeping import open_sleeping
from tests.reliability.places import DATABASES, Place, wait_for

pytestmark = [
    pytest.mark.rounding,
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.filterwarnings("ignore"),  # Ray's own, of sockets and pipes that it leaves to the collector
]

BUSY, LEASE_SECONDS = 0.4, 3.0
"""Seconds for each user who is learnt, and until a silent worker's lease runs out."""
USERS = [UserKey("default", f"user {number}") for number in range(8)]
JOBS = 24
PATIENCE_SECONDS = 300.0


@contextmanager
def working(place: Place, actors: int, *, seconds: float, jobs_at_once: int) -> Iterator[Future[WorkSummary]]:
    """Have workers drain the queue meanwhile; at the end they are stopped."""
    from locas_ray.cluster import RayResources
    from locas_ray.workers import work_on_ray

    stop = Event()
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(
            work_on_ray,
            partial(open_sleeping, place.url, str(place.files), seconds),
            resources=RayResources(actors=actors, cpus=0.5, gpus=0),
            stop=stop,
            jobs_at_once=jobs_at_once,
            lease_seconds=LEASE_SECONDS,
            poll_seconds=0.1,
        )
        try:
            yield running
        finally:
            stop.set()
            running.result(timeout=PATIENCE_SECONDS)


def say(store: SqlMemoryStore, users: Sequence[UserKey], number: int) -> None:
    """Have each user say something that is to be learnt."""
    for key in users:
        draft = TurnDraft("user", f"{key.user} says {number}", idempotency_key=f"turn {number}", token_count=20)
        store.append(key, [draft], enqueue=1 << 40)


def is_learnt(store: SqlMemoryStore, keys: Sequence[UserKey]) -> Callable[[], bool]:
    """Return what tells whether all that some users said by now is learnt."""
    said = {key: store.turns(key, newest=1)[-1].seq for key in keys}
    return lambda: all((state := store.state(key)) and state.consolidated_seq >= said[key] for key in keys)


def seen(store: SqlMemoryStore, actors: int, users: Sequence[UserKey]) -> set[int]:
    """Have jobs done until so many workers have had one; return their processes."""
    pids: set[int] = set()
    until = time.monotonic() + PATIENCE_SECONDS
    for number in count():
        say(store, users, number)
        done = is_learnt(store, users)
        while not done():
            pids |= holders(store).keys()
            assert time.monotonic() < until, "a worker did not come"
            time.sleep(0.02)
        if len(pids) >= actors:
            break
    return pids


@pytest.mark.parametrize("database", DATABASES)
def test_killed_workers_lose_nothing_and_nothing_is_learnt_twice(
    database: str, make_place: Callable[[str], Place], sizes: Sizes, record: Record
) -> None:
    place, rng, moved, pids = make_place(database), random.Random(2026), [], set()
    with local_cluster(), closing(place.open()) as store:
        with working(place, 2, seconds=BUSY, jobs_at_once=2):
            seen(store, 2, USERS)
            for number in range(1_000, 1_000 + sizes.ray_worker_kills):
                say(store, USERS, number)
                wait_for(lambda: holders(store), seconds=PATIENCE_SECONDS)
                time.sleep(rng.random() * BUSY)
                held = holders(store)
                if not held:  # it was done a moment ago: the next round
                    continue
                pid = rng.choice(sorted(held))
                os.kill(pid, signal.SIGKILL)
                killed_at, done = time.monotonic(), is_learnt(store, held[pid])
                pids.add(pid)
                wait_for(done, seconds=PATIENCE_SECONDS)
                moved.append(time.monotonic() - killed_at)
                wait_for(is_learnt(store, USERS), seconds=PATIENCE_SECONDS)
            seen(store, 2, USERS)  # Ray has begun another in the place of the last
        faults = store.verify().faults
        turns = {key: [turn.seq for turn in store.turns(key)] for key in USERS}
        spans = {
            key: [seq for one in store.revisions(key) for seq in range(one.from_seq, one.to_seq + 1)] for key in USERS
        }
    assert faults == ()
    assert len(pids) == len(moved) > 0  # each was another process: the dead were replaced
    assert {key: sorted(seqs) for key, seqs in spans.items()} == turns  # each turn is in one revision, none in two
    record(
        f"killed Ray workers, {database}",
        kills=len(moved),
        workers=2,
        lease_seconds=LEASE_SECONDS,
        seconds_until_learnt_by_another=round(statistics.median(moved), 2),
        longest_seconds=round(max(moved), 2),
        turns=sum(map(len, turns.values())),
        lost=0,
        learnt_twice=0,
        faults=0,
    )


def seconds_for_all(place: Place, actors: int) -> float:
    """Return how long so many workers take for jobs of `BUSY` seconds each, once they have begun."""
    users = [UserKey("default", f"of {actors} {number}") for number in range(JOBS)]
    with closing(place.open()) as store, working(place, actors, seconds=BUSY, jobs_at_once=1):
        seen(store, actors, USERS)
        began = time.monotonic()
        say(store, users, 0)
        wait_for(is_learnt(store, users), seconds=PATIENCE_SECONDS)
        return time.monotonic() - began


def test_two_workers_do_the_work_of_two(make_place: Callable[[str], Place], record: Record) -> None:
    place = make_place("postgresql")
    with local_cluster():
        one, two = seconds_for_all(place, 1), seconds_for_all(place, 2)
    assert one / two >= 1.8
    record(
        "Ray workers side by side, sleeping learner",
        jobs=JOBS,
        seconds_each=BUSY,
        one_worker_jobs_per_second=round(JOBS / one, 2),
        two_workers_jobs_per_second=round(JOBS / two, 2),
        ratio=round(one / two, 2),
    )
