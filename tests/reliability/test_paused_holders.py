"""Holders of a lease that are stopped past its end and wake when another has it: nothing they learnt is written.

They are stopped by SIGSTOP between their claim and the transaction of their commit, at each step that lies there.
Within that transaction they hold the locks that keep everybody else out, so there is nobody to take over.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from locas_storage import UserKey
from tests.reliability.conftest import Record, Sizes
from tests.reliability.crash_targets import learn, payload_of, said
from tests.reliability.places import DATABASES, Place, claim_soon
from tests.reliability.process_pool import ProcessPool, Victim

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
TURNS = 8
HOLDERS = ("hold", "work")
"""One that calls the store, and a worker with its heartbeat."""


@dataclass
class Found:
    """What became of the holders that woke.

    Attributes:
        outcomes: what each was told, by holder.
        stale: memories of holders that were written all the same.
        faults: what `verify` names, and chains that are not the other worker's.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    stale: int = 0
    faults: list[str] = field(default_factory=list)


@dataclass
class Gate:
    """A run of pauses on one place."""

    process_pool: ProcessPool
    place: Place
    folder: Path
    fault: str = ""
    found: Found = field(default_factory=Found)
    number: int = 0

    def run(self, pauses: int) -> None:
        """Stop holders, spread over all steps there are."""
        each = pauses // len(HOLDERS)
        for act in HOLDERS:
            steps = self.steps_of(act)
            for pause in range(each):
                self.pause(act, 1 + pause * steps // each, has_committed=pause % 2 == 0)

    def steps_of(self, act: str) -> int:
        """Let a holder come through, and return at how many steps it can be stopped."""
        victim = self.begin(act, 0)
        assert victim.wait() == 0
        told = victim.told()
        assert told[0]["outcome"] == "committed"
        return int(told[-1]["steps"])

    def begin(self, act: str, at_step: int) -> Victim:
        """Start a holder on a user of its own."""
        self.number += 1
        with closing(self.place.open()) as store:
            store.append(self.key, said(self.key.user, range(1, TURNS + 1)), enqueue=TURNS)
        return self.process_pool.start(
            act,
            self.folder / f"notes {self.number}",
            url=self.place.url,
            files=str(self.place.files),
            user=self.key.user,
            fault=self.fault,
            at_step=at_step,
            signal_number=signal.SIGSTOP,
            opens="claim.after_commit",
            closes="commit.file",
        )

    @property
    def key(self) -> UserKey:
        return UserKey("default", f"user {self.number:04}")

    def pause(self, act: str, at_step: int, *, has_committed: bool) -> None:
        """Stop a holder, let another worker take over and, if asked, finish; then wake the holder."""
        victim = self.begin(act, at_step)
        assert os.WIFSTOPPED(victim.wait())
        payload = payload_of(self.key.user, TURNS)
        with closing(self.place.open()) as store:
            lease = claim_soon(store, self.key)
            if has_committed:
                learn(store, self.key, TURNS, lease=lease)
            os.kill(victim.pid, signal.SIGCONT)
            assert victim.wait() == 0
            self.found.outcomes[f"{act}: {victim.told()[0]['outcome']}"] += 1
            self.found.stale += sum(store.payload(self.key, one.number) != payload for one in store.revisions(self.key))
            if not has_committed and not self.found.stale:
                learn(store, self.key, TURNS, lease=lease)
            chain = [(one.number, one.to_seq) for one in store.revisions(self.key)]
            self.found.faults += [] if chain == [(1, TURNS)] else [f"chain {chain}"]
            self.found.faults += [
                fault.what for fault in store.verify(tenant=self.key.tenant, user=self.key.user).faults
            ]


@pytest.fixture
def gate(process_pool: ProcessPool, make_place: Callable[[str], Place], tmp_path: Path) -> Callable[..., Gate]:
    def make(database: str, fault: str = "") -> Gate:
        return Gate(process_pool, make_place(database), tmp_path, fault)

    return make


@pytest.mark.parametrize("database", DATABASES)
def test_holder_that_wakes_late_is_refused(
    database: str, gate: Callable[..., Gate], sizes: Sizes, record: Record
) -> None:
    run = gate(database)
    run.run(sizes.pauses)
    assert (run.found.stale, run.found.faults) == (0, [])
    assert run.found.outcomes.keys() == {f"{act}: LeaseLost" for act in HOLDERS}
    assert run.found.outcomes.total() == sizes.pauses
    record(
        f"paused holders, {database}", pauses=sizes.pauses, stale_commits=0, refused=dict(run.found.outcomes), faults=0
    )


def test_gate_sees_a_commit_that_checks_no_fence(gate: Callable[..., Gate]) -> None:
    run = gate("sqlite", "no_fence")
    run.pause("hold", 1, has_committed=False)
    assert run.found.stale == 1
