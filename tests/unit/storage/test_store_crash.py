"""A process killed at any step of a change leaves all of it or nothing, and loses nothing acknowledged."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from crash_worker import LATE
from storage_samples import ADA, broken_invariants, draft, item

from locas_storage import SqlMemoryStore, TurnDraft, UserErased, UserState
from locas_storage.sql import forgetting, queue, revisions
from locas_storage.sql import store as sql

CHANGES = {
    sql: ["append"],
    revisions: ["commit", "rollback", "cut_over"],
    queue: ["claim"],
    forgetting: ["forget", "correct", "erase"],
}
POINTS = sorted(
    {
        point
        for module in CHANGES
        for point in re.findall(r'_fault_point\("([a-z_.]+)"\)', Path(module.__file__).read_text(encoding="utf-8"))
    }
)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(scope="module")
def wrecks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Databases left by processes that died, one for each point."""
    folder = tmp_path_factory.mktemp("wrecks")
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(Path(sql.__file__).parents[2])])
    done = subprocess.run(
        [sys.executable, str(here / "crash_worker.py"), str(folder), *POINTS],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_every_change_has_points_before_and_after_its_commit() -> None:
    changes = {change for named in CHANGES.values() for change in named}
    assert {point.partition(".")[0] for point in POINTS} == changes
    assert all(f"{change}.{when}_commit" in POINTS for change in changes for when in ("before", "after"))


@pytest.mark.parametrize(
    "point", [point for point in POINTS if point.partition(".")[0] in CHANGES[sql] + CHANGES[revisions]]
)
def test_killed_process_leaves_all_or_nothing(wrecks: Path, point: str) -> None:
    path = wrecks / f"{point}.db"
    change, _, step = point.partition(".")
    is_done = step == "after_commit"
    if point != "append.user":
        assert broken_invariants(path) == []
    store = SqlMemoryStore(f"sqlite:///{path}")
    if point == "append.user":
        assert store.users() == []
        assert [turn.seq for turn in store.append(ADA, LATE)] == [1, 2]
        store.close()
        assert broken_invariants(path) == []
        return
    turns, state = store.turns(ADA), counters(store)
    assert [turn.content for turn in turns[:3]] == ["text 0", "text 1", "text 2"]
    assert store.payload(ADA, 1) == b"acknowledged"
    assert len(turns) == (5 if point == "append.after_commit" else 3)
    expected = {
        "append": (1, 2),
        "commit": (2, 3) if is_done else (1, 2),
        "rollback": (2, 0) if is_done else (1, 2),
        "cut_over": (3, 2) if is_done else (1, 2),
    }
    assert (state.head, state.consolidated_seq) == expected[change]
    questions = {
        "append": ["old"],
        "commit": ["new"] if is_done else ["old"],
        "rollback": [] if is_done else ["old"],
        "cut_over": ["new"] if is_done else ["old"],
    }
    assert [kept.question for kept in store.study_items(ADA)] == questions[change]
    assert len(store.audit(ADA)) == (1 if point in ("rollback.after_commit", "cut_over.after_commit") else 0)

    again = store.append(ADA, LATE)  # the retry doubles nothing
    assert [turn.seq for turn in again] == [4, 5]
    assert store.append(ADA, LATE) == again
    store.commit(ADA, draft(state.head, state.consolidated_seq + 1, 5, new_items=(item(),)))
    store.rollback(ADA, 1)
    store.close()
    assert broken_invariants(path) == []


@pytest.mark.parametrize("point", [point for point in POINTS if point.startswith("claim.")])
def test_job_of_a_killed_worker_is_claimed_again(wrecks: Path, point: str) -> None:
    path = wrecks / f"{point}.db"
    assert broken_invariants(path) == []
    store = SqlMemoryStore(f"sqlite:///{path}")
    (lease,) = store.queue.claim("other")
    assert (lease.to_seq, lease.attempt) == (3, 2 if point == "claim.after_commit" else 1)
    assert store.queue.claim("third") == []
    store.commit(ADA, draft(1, 3, 3, fence=lease.fence), lease=lease)
    assert store.queue.jobs() == []
    store.close()
    assert broken_invariants(path) == []


@pytest.mark.parametrize("point", [point for point in POINTS if point.startswith("forget.")])
def test_forgetting_cut_short_forgets_all_or_nothing(wrecks: Path, point: str) -> None:
    path = wrecks / f"{point}.db"
    assert broken_invariants(path) == []
    store = SqlMemoryStore(f"sqlite:///{path}")
    is_done = point == "forget.after_commit"
    assert [turn.seq for turn in store.turns(ADA)] == ([1, 3] if is_done else [1, 2, 3])
    assert (counters(store).head, counters(store).consolidated_seq) == ((2, 0) if is_done else (1, 2))
    assert [kept.question for kept in store.study_items(ADA)] == ([] if is_done else ["old"])
    if not is_done:
        assert store.payload(ADA, 1) == b"acknowledged"
    assert [(job.to_seq, job.is_rebuild) for job in store.queue.jobs()] == [(3, is_done)]
    again = store.forget(ADA, [2])  # the retry ends it
    assert again.turns == (() if is_done else (2,))
    assert again.is_overwritten
    assert [job.is_rebuild for job in store.queue.jobs()] == [True]
    store.close()
    assert broken_invariants(path) == []
    assert_nowhere(path, b"acknowledged", b"text 1")


@pytest.mark.parametrize("point", [point for point in POINTS if point.startswith("correct.")])
def test_correction_cut_short_replaces_all_or_nothing(wrecks: Path, point: str) -> None:
    path = wrecks / f"{point}.db"
    assert broken_invariants(path) == []
    store = SqlMemoryStore(f"sqlite:///{path}")
    is_done = point == "correct.after_commit"
    old, new = ["text 0", "text 1", "text 2"], ["text 0", "text 2", "corrected"]
    assert [turn.content for turn in store.turns(ADA)] == (new if is_done else old)
    assert (counters(store).head, counters(store).consolidated_seq) == ((2, 0) if is_done else (1, 2))
    if not is_done:
        store.correct(ADA, 2, TurnDraft("user", "corrected"))  # the retry ends it
    assert [turn.content for turn in store.turns(ADA)] == new
    store.close()
    assert broken_invariants(path) == []
    assert_nowhere(path, b"acknowledged", b"text 1")


@pytest.mark.parametrize("point", [point for point in POINTS if point.startswith("erase.")])
def test_erasure_cut_short_erases_all_or_nothing(wrecks: Path, point: str) -> None:
    path = wrecks / f"{point}.db"
    assert broken_invariants(path) == []
    store = SqlMemoryStore(f"sqlite:///{path}")
    is_done = point == "erase.after_commit"
    assert len(store.turns(ADA)) == (0 if is_done else 3)
    assert (store.state(ADA) is None) is is_done
    assert store.erase(ADA).is_overwritten  # the retry ends it
    with pytest.raises(UserErased):
        store.append(ADA, LATE)
    store.close()
    assert broken_invariants(path) == []
    assert_nowhere(path, b"acknowledged", b"text 0", b"text 1", b"text 2")


def assert_nowhere(path: Path, *canaries: bytes) -> None:
    files = [file for file in path.parent.iterdir() if file.name.startswith(path.name)]
    assert files
    assert [(file.name, canary) for file in files for canary in canaries if canary in file.read_bytes()] == []


def counters(store: SqlMemoryStore) -> UserState:
    state = store.state(ADA)
    assert state is not None
    return state
