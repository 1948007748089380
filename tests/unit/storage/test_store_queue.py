"""The queue between processes: a paused holder that wakes late, and many workers beside many writers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from storage_samples import ADA, draft, say

from locas_storage import LeaseLost, RevisionConflict, SqlMemoryStore, TurnDraft, UserKey
from locas_storage.sql import store as sql

HOLDER = """
import sys, time
from storage_samples import ADA, draft
from locas_storage import LocasError, SqlMemoryStore
store = SqlMemoryStore(sys.argv[1])
(lease,) = store.queue.claim("holder", lease_seconds=0.2)
print("claimed", flush=True)
time.sleep(0.3)  # it is stopped in here
for act in (lambda: store.queue.heartbeat(lease), lambda: store.commit(ADA, draft(0, 1, 3, b"stale"), lease=lease)):
    try:
        act()
        print("accepted", flush=True)
    except LocasError as error:
        print(type(error).__name__, flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs SIGSTOP")
def test_holder_that_was_paused_is_refused_when_it_wakes(store_url: str) -> None:
    store = SqlMemoryStore(store_url)
    say(store, 3)
    store.queue.enqueue(ADA, 3)
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(sql.__file__).parents[2])])
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, store_url],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "claimed\n"
    holder.send_signal(signal.SIGSTOP)
    while not (leases := store.queue.claim("other")):
        time.sleep(0.02)
    store.commit(ADA, draft(0, 1, 3, b"good"), lease=leases[0])
    holder.send_signal(signal.SIGCONT)
    assert holder.communicate(timeout=60)[0] == "LeaseLost\nLeaseLost\n"
    assert [store.payload(ADA, revision.number) for revision in store.revisions(ADA)] == [b"good"]
    store.close()


def test_workers_and_writers_do_not_hinder_each_other(store_url: str) -> None:
    """Appends that ask, claims of several jobs, heartbeats, commits, failures and forgettings at once.

    No deadlock, nothing learnt twice.
    """
    keys = [UserKey("default", f"user {number}") for number in range(6)]
    stores = [SqlMemoryStore(store_url) for _ in range(3)]
    for key in keys:
        stores[0].append(key, [TurnDraft("user", "first", token_count=3)], enqueue=1)
    errors: list[BaseException] = []
    writers_done: list[int] = []
    barrier = threading.Barrier(7)

    def write(store: SqlMemoryStore, worker: int) -> None:
        for number in range(12):
            for key in keys:
                (turn,) = store.append(key, [TurnDraft("user", f"{worker} {number}", token_count=3)], enqueue=1_000)
                if number == 6 and worker == 0:
                    store.forget(key, [turn.seq])
        writers_done.append(worker)

    def learn(store: SqlMemoryStore, worker: int) -> None:
        done = 0
        while True:
            is_last = len(writers_done) >= 3
            leases = store.queue.claim(f"worker {worker}", limit=4)
            for lease in leases:
                done += 1
                with suppress(LeaseLost, RevisionConflict):  # where a forgetting came between
                    store.queue.heartbeat(lease)
                    state = store.state(lease.key)
                    assert state is not None
                    if done % 5 == 0:
                        store.queue.fail(lease, "Unlucky", retry_seconds=0)
                    elif state.consolidated_seq >= lease.to_seq:
                        store.queue.complete(lease, lease.to_seq)
                    else:
                        change = draft(
                            state.head, state.consolidated_seq + 1, lease.to_seq, os.urandom(16), fence=state.fence
                        )
                        store.commit(lease.key, change, lease=lease)
            if is_last and not leases:
                return
            time.sleep(0.002)

    def run(act: object, store: SqlMemoryStore, worker: int) -> None:
        barrier.wait()
        try:
            act(store, worker)  # type: ignore[operator]
        except BaseException as error:  # noqa: BLE001  a thread must not die unseen
            errors.append(error)
            writers_done.append(worker)

    tasks = [(write, worker) for worker in range(3)] + [(learn, worker) for worker in range(4)]
    threads = [
        threading.Thread(target=run, args=(act, stores[at % 3], worker)) for at, (act, worker) in enumerate(tasks)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    for key in keys:
        state = stores[0].state(key)
        assert state is not None
        assert state.next_seq == 1 + 1 + 3 * 12
        assert state.consolidated_seq == state.next_seq - 1, [job for job in stores[0].queue.jobs() if job.key == key]
        learnt = [revision for revision in stores[0].revisions(key) if revision.restores is None]
        assert len(learnt) == len({(revision.parent) for revision in learnt})
    assert [job for job in stores[0].queue.jobs() if job.state != "dead"] == []
    for store in stores:
        store.close()
