"""Many threads append while workers, in processes of their own, learn and are killed.

Nothing is lost and no number is left out.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from locas_storage import UserKey
from locas_storage.sql.statements import users
from tests.reliability.conftest import Record, Sizes
from tests.reliability.places import DATABASES, Place
from tests.reliability.process_pool import ProcessPool, Victim
from tests.reliability.writers import Kept, Writers, kept_of

USERS = [UserKey("default", f"user {number:02}") for number in range(16)]
WORKERS = 3
LIVES_SECONDS = (0.2, 1.5)
"""How long a worker lives before it is killed, drawn between."""
PATIENCE_SECONDS = 60.0
"""How long the last workers may live on a busy machine until one of all has learnt something."""


@dataclass
class Storm:
    """What was done and what came of it.

    Attributes:
        kept: turns.
        kills: workers killed.
        revisions: what they committed and told of.
        revisions_lost: how many of these are not there.
        retried: see `Writers`.
        faults: what `verify` names.
    """

    kept: Kept
    kills: int
    revisions: int
    revisions_lost: int
    retried: Counter[str]
    faults: list[str]


def storm(process_pool: ProcessPool, place: Place, folder: Path, threads: int, seconds: float) -> Storm:
    """Append from many threads for so long, while workers are killed and others take their place."""
    rng = random.Random(2026)
    workers: list[tuple[float, Victim]] = []
    dead: list[Victim] = []

    def employ() -> None:
        notes = folder / f"notes {len(dead)} {len(workers)}"
        victim = process_pool.start("serve", notes, url=place.url, files=str(place.files), user="nobody")
        workers.append((time.monotonic() + rng.uniform(*LIVES_SECONDS), victim))

    def dismiss(victim: Victim) -> None:
        assert os.WIFSIGNALED(victim.kill()), "a worker had ended by itself"
        dead.append(victim)

    with closing(place.open()) as store:
        store.users()
        with Writers(store, USERS, threads) as writers:
            until = time.monotonic() + seconds
            while time.monotonic() < until and not writers.errors:
                while len(workers) < WORKERS:
                    employ()
                workers.sort(key=lambda one: one[0])
                ends, victim = workers.pop(0)
                time.sleep(max(0.0, ends - time.monotonic()))
                dismiss(victim)
        patience = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < patience and not any(
            "revision" in line for victim in [*dead, *(one for _, one in workers)] for line in victim.told()
        ):
            time.sleep(0.1)
        for _, victim in workers:
            dismiss(victim)
        assert writers.errors == []
    place.settle()
    with closing(place.open()) as store:
        kept, faults = kept_of(store, writers.acknowledged), [fault.what for fault in store.verify().faults]
        told = [(line["user"], line["revision"]) for victim in dead for line in victim.told() if "revision" in line]
        there = {(key.user, one.number) for key in USERS for one in store.revisions(key)}
        return Storm(kept, len(dead), len(told), len(set(told) - there), writers.retried, faults)


@pytest.mark.parametrize("database", DATABASES)
def test_appends_beside_dying_workers_leave_no_gap(
    database: str,
    process_pool: ProcessPool,
    make_place: Callable[[str], Place],
    tmp_path: Path,
    sizes: Sizes,
    record: Record,
) -> None:
    done = storm(process_pool, make_place(database), tmp_path, sizes.append_threads, sizes.append_seconds)
    assert (done.kept.lost, done.kept.doubled, done.kept.gaps, done.revisions_lost, done.faults) == (0, 0, 0, 0, [])
    assert done.revisions > 0
    record(
        f"appending threads, {database}",
        threads=sizes.append_threads,
        append_seconds=sizes.append_seconds,
        workers_killed=done.kills,
        acknowledged=done.kept.acknowledged,
        revisions=done.revisions,
        lost=0,
        doubled=0,
        gaps=0,
        revisions_lost=0,
        sent_again_after_an_error=done.retried.total(),
        faults=0,
    )


def test_gate_sees_a_number_left_out(
    process_pool: ProcessPool, make_place: Callable[[str], Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(users, "give_back", lambda *_: None)  # the numbers of a repeated turn
    done = storm(process_pool, make_place("sqlite"), tmp_path, threads=4, seconds=0.5)
    assert done.kept.gaps > 0
    assert "journal" in done.faults
