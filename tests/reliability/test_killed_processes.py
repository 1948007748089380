"""Processes killed at any moment of any change.

What was acknowledged is kept once, the rest is whole or absent, and others go on.

Kills are SIGKILL, at drawn steps (each side of each statement, each fault point of the store, each side of an
acknowledgement) and at drawn times. Only processes die here, the machine goes on.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from locas_storage import SqlMemoryStore, StorageError, UserErased, UserKey
from tests.reliability.conftest import Record, Sizes
from tests.reliability.crash_targets import BATCH, BATCHES, learn, payload_of, said, text_of
from tests.reliability.places import DATABASES, Place, claim_soon
from tests.reliability.process_pool import ProcessPool, Victim

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
Told = list[dict[str, Any]]
BETWEEN_THE_TWO = 4
"""Step from the fault point `commit.items` on at which `commit_in_two` has committed once: the point, then both sides
of its COMMIT, then BEGIN."""


@dataclass
class Found:
    """What the survivors found.

    Attributes:
        kills: processes killed, by what they were doing.
        at_steps: how many of them at a step, the others at a time.
        acknowledged: turns, revisions and removals that were acknowledged, before the kill.
        lost: how many of these are not there.
        doubled: turns that are there twice.
        broken: whatever else is not as it must be.
        faults: what `verify` names.
    """

    kills: Counter[str] = field(default_factory=Counter)
    at_steps: int = 0
    acknowledged: int = 0
    lost: int = 0
    doubled: int = 0
    broken: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def require(self, holds: bool, what: str) -> None:
        if not holds:
            self.broken.append(what)

    def see_turns(self, store: SqlMemoryStore, key: UserKey, acknowledged: set[int]) -> set[int]:
        """Compare the journal with what was acknowledged; return the numbers of the turns that can be read."""
        kept = {turn.seq: turn.content for turn in store.turns(key)}
        self.acknowledged += len(acknowledged)
        self.lost += sum(kept.get(seq) != text_of(key.user, seq) for seq in acknowledged)
        self.doubled += len(kept) - len(set(kept.values()))
        return set(kept)


@dataclass(frozen=True)
class Stage:
    """Something that is cut short.

    Attributes:
        act: the name of what the victim does, see `crash_targets.ACTS`.
        turns: how many turns there are before.
        learnt: up to which turns memories are committed before.
        check: what survivors find, do again and find then.
        asked: whether the turns wait to be learnt.
    """

    act: str
    turns: int
    learnt: tuple[int, ...]
    check: Callable[[Found, Place, SqlMemoryStore, UserKey, Told], None]
    asked: bool = False

    def prepare(self, store: SqlMemoryStore, key: UserKey) -> None:
        if self.turns:
            store.append(key, said(key.user, range(1, self.turns + 1)), enqueue=self.turns if self.asked else None)
        for to_seq in self.learnt:
            learn(store, key, to_seq)


def check_append(
    found: Found, place: Place, store: SqlMemoryStore, key: UserKey, told: Told, *, with_keys: bool = True
) -> None:
    found.see_turns(store, key, {seq for line in told for seq in line.get("turns", ())})
    everything = range(1, BATCH * BATCHES + 1)
    for first in everything[::BATCH]:  # the writer does not know how far it came
        store.append(key, said(key.user, range(first, first + BATCH), with_keys=with_keys), enqueue=first)
    found.require(found.see_turns(store, key, set()) == set(everything), "append: the retry")
    learn_rest(found, store, key, everything[-1])


def check_claim(found: Found, place: Place, store: SqlMemoryStore, key: UserKey, told: Told) -> None:
    fences = [line["fence"] for line in told if "fence" in line]
    found.acknowledged += len(fences)
    lease = claim_soon(store, key)
    found.require(lease.fence > max(fences, default=0) and lease.to_seq == 4, "claim: the fence")
    learn(store, key, lease.to_seq, lease=lease)
    found.require(not has_job(store, key), "claim: the job")


def check_train(found: Found, place: Place, store: SqlMemoryStore, key: UserKey, told: Told) -> None:
    found.see_turns(store, key, set(range(1, 9)))
    state = store.state(key)
    found.acknowledged += len(revisions := [line["revision"] for line in told if "revision" in line])
    found.lost += len([number for number in revisions if state is None or state.head < number])
    found.require(state is not None and has_job(store, key) is (state.head == 0), "train: the job")
    learn_rest(found, store, key, 8)


def check_commit(found: Found, place: Place, store: SqlMemoryStore, key: UserKey, told: Told) -> None:
    acknowledged = [line["revision"] for line in told if "revision" in line]
    revisions = {one.number: one for one in store.revisions(key)}
    found.acknowledged += len(acknowledged)
    found.lost += len(set(acknowledged) - revisions.keys())
    for number, one in revisions.items():
        found.require(
            one.to_seq == 2 * number and store.payload(key, number) == payload_of(key.user, one.to_seq),
            "commit: a revision",
        )
    learn_rest(found, store, key, 6)
    items = store.study_items(key, with_retired=True)
    found.require(
        len(items) == 2 * len(store.revisions(key)) and len({one.question for one in items}) == len(items),
        "commit: study items",
    )


def check_forget(found: Found, place: Place, store: SqlMemoryStore, key: UserKey, told: Told) -> None:
    forgotten = {line["forgotten"] for line in told if "forgotten" in line}
    found.acknowledged += len(forgotten)
    shown = found.see_turns(store, key, {1, 3, 4, 6})
    found.lost += len(shown & forgotten)
    found.require(
        {turn.seq for seq in forgotten for turn in store.search(key, text_of(key.user, seq))}.isdisjoint(forgotten),
        "forget: search",
    )
    receipt = store.forget(key, [2, 5])
    found.require(receipt.is_overwritten is (place.database_file is not None), "forget: overwritten")
    store.collect(grace_seconds=0)
    gone = [text_of(key.user, seq).encode() for seq in (2, 5)] + [payload_of(key.user, to_seq) for to_seq in (3, 6)]
    found.require(not place.holds(key, gone), "forget: bytes are left")
    found.require(
        all(turn.is_forgotten for turn in store.append(key, said(key.user, [2, 5]))),
        "forget: a late retry brings it back",
    )
    found.require(found.see_turns(store, key, set()) == {1, 3, 4, 6}, "forget: the retry")
    learn_rest(found, store, key, 6)


def check_erase(found: Found, place: Place, store: SqlMemoryStore, key: UserKey, told: Told) -> None:
    is_told = any("erased" in line for line in told)
    found.acknowledged += is_told
    state, shown = store.state(key), len(store.turns(key))
    found.lost += is_told and state is not None
    found.require(
        (state is None and shown == 0) or (state is not None and (shown, state.head) == (6, 2)), "erase: half"
    )
    store.erase(key)
    store.collect(grace_seconds=0)
    gone = [text_of(key.user, seq).encode() for seq in range(1, 7)] + [
        payload_of(key.user, to_seq) for to_seq in (3, 6)
    ]
    found.require(not place.holds(key, gone), "erase: bytes are left")
    try:
        store.append(key, said(key.user, [7]))
        found.broken.append("erase: a late writer")
    except UserErased:
        store.reinstate(key)
    found.require([turn.seq for turn in store.append(key, said(key.user, [1]))] == [1], "erase: beginning again")


def learn_rest(found: Found, store: SqlMemoryStore, key: UserKey, to_seq: int) -> None:
    """Learn what is not learnt, as a worker does once the dead one's lease is over."""
    state = store.state(key)
    if state is not None and state.consolidated_seq < to_seq:
        store.queue.enqueue(key, to_seq)
        learn(store, key, to_seq, lease=claim_soon(store, key))
        state = store.state(key)
    found.require(state is not None and state.consolidated_seq == to_seq, "learning goes on")
    found.require(not has_job(store, key), "a job is left over")


def has_job(store: SqlMemoryStore, key: UserKey) -> bool:
    return key in [job.key for job in store.queue.jobs()]


STAGES = {
    stage.act: stage
    for stage in (
        Stage("append", 0, (), check_append),
        Stage("claim", 4, (), check_claim, asked=True),
        Stage("train", 8, (), check_train, asked=True),
        Stage("commit", 6, (2,), check_commit),
        Stage("forget", 6, (3, 6), check_forget),
        Stage("erase", 6, (3, 6), check_erase),
    )
}


@dataclass
class Gate:
    """A run of kills on one place."""

    process_pool: ProcessPool
    place: Place
    folder: Path
    rng: random.Random
    fault: str = ""
    found: Found = field(default_factory=Found)
    number: int = 0

    def run(self, stage: Stage, points: int) -> None:
        """Cut a stage short so many times."""
        _, told = self.live(stage, lambda victim: victim.wait())
        steps, seconds = told[-1]["steps"], told[-1]["seconds"]
        for point in range(points):
            at = (point + self.rng.random()) / points
            while not (
                self.at_step(stage, 1 + int(at * steps)) if point % 2 == 0 else self.at_time(stage, at * seconds)
            ):
                at /= 2  # it was over sooner than the one that was measured

    def at_step(self, stage: Stage, step: int, *, opens: str = "") -> bool:
        is_killed, _ = self.live(stage, lambda victim: victim.wait(), at_step=step, opens=opens)
        self.found.at_steps += is_killed
        return is_killed

    def at_time(self, stage: Stage, seconds: float) -> bool:
        return self.live(stage, lambda victim: killed_after(victim, seconds))[0]

    def live(self, stage: Stage, end: Callable[[Victim], int], **how: Any) -> tuple[bool, Told]:
        """Let one victim live until its end, and check what it leaves.

        Return whether it was killed, and what it was told.

        Args:
            stage: what it does.
            end: waits for the end, or brings it about; returns the status.
            how: the step at which it is killed, see `crash_targets.Life`.
        """
        self.number += 1
        key = UserKey("default", f"{stage.act} {self.number:04}")
        with closing(self.place.open()) as store:
            store.users()  # makes the tables
            stage.prepare(store, key)
        where = {"url": self.place.url, "files": str(self.place.files), "user": key.user}
        victim = self.process_pool.start(
            stage.act, self.folder / f"notes {self.number}", **where, fault=self.fault, **how
        )
        status = end(victim)
        is_killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        assert is_killed or status == 0, f"{stage.act}: status {status}"
        self.found.kills[stage.act] += is_killed
        self.place.settle()
        told = victim.told()
        with closing(self.place.open()) as store:
            try:
                stage.check(self.found, self.place, store, key, told)
            except StorageError as error:
                self.found.broken.append(f"{stage.act}: {type(error).__name__}")
            self.found.faults += [
                f"{stage.act}: {fault.what}" for fault in store.verify(tenant=key.tenant, user=key.user).faults
            ]
        return is_killed, told


def killed_after(victim: Victim, pause: float) -> int:
    time.sleep(pause)
    return victim.kill()


@pytest.fixture
def gate(process_pool: ProcessPool, make_place: Callable[[str], Place], tmp_path: Path) -> Callable[..., Gate]:
    def make(database: str, **how: Any) -> Gate:
        return Gate(process_pool, make_place(database), tmp_path, random.Random(2026), **how)

    return make


@pytest.mark.parametrize("database", DATABASES)
def test_nothing_acknowledged_is_lost_whenever_a_process_dies(
    database: str, gate: Callable[..., Gate], sizes: Sizes, record: Record
) -> None:
    run = gate(database)
    for stage in STAGES.values():
        run.run(stage, sizes.kill_points // len(STAGES))
    found = run.found
    with closing(run.place.open()) as store:
        whole = store.verify()
    found.faults += [fault.what for fault in whole.faults]
    assert (found.lost, found.doubled, found.broken, found.faults) == (0, 0, [], [])
    assert all(found.kills[name] >= sizes.kill_points // len(STAGES) for name in STAGES)
    record(
        f"killed processes, {database}",
        kills=found.kills.total(),
        by_stage=dict(found.kills),
        at_steps=found.at_steps,
        at_times=found.kills.total() - found.at_steps,
        acknowledged=found.acknowledged,
        lost=found.lost,
        doubled=found.doubled,
        faults=0,
        users_verified=whole.users,
    )


def test_gate_sees_an_acknowledgement_before_the_commit(gate: Callable[..., Gate]) -> None:
    run = gate("sqlite", fault="lazy_commit")
    run.run(STAGES["append"], 2)
    assert run.found.lost > 0


def test_gate_sees_a_commit_in_two_transactions(gate: Callable[..., Gate]) -> None:
    run = gate("sqlite", fault="commit_in_two")
    assert run.at_step(STAGES["commit"], BETWEEN_THE_TWO, opens="commit.items")
    assert any("head" in fault for fault in run.found.faults)


def test_gate_sees_a_retry_that_doubles(gate: Callable[..., Gate]) -> None:
    run = gate("sqlite")
    run.run(Stage("append", 0, (), lambda *given: check_append(*given, with_keys=False)), 1)
    assert run.found.doubled > 0
