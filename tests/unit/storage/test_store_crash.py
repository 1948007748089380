"""A process killed at any step of a change leaves all of it or nothing, and loses nothing acknowledged.

Knows nothing of power loss: only processes die here.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from crash_worker import LATE
from storage_samples import ADA, broken_invariants, draft, item

from locas_storage import SqlMemoryStore, UserState, sql

POINTS = sorted(set(re.findall(r'_fault_point\("([a-z_.]+)"\)', Path(sql.__file__).read_text(encoding="utf-8"))))

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(scope="module")
def wrecks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Databases left by processes that died, one for each point."""
    folder = tmp_path_factory.mktemp("wrecks")
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(Path(sql.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, str(here / "crash_worker.py"), str(folder), *POINTS], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_every_change_has_points_before_and_after_its_commit() -> None:
    assert {point.partition(".")[0] for point in POINTS} == {"append", "commit", "rollback"}
    assert all(f"{change}.{when}_commit" in POINTS for change in ("append", "commit", "rollback") for when in ("before", "after"))


@pytest.mark.parametrize("point", POINTS)
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
    expected = {"append": (1, 2), "commit": (2, 3) if is_done else (1, 2), "rollback": (2, 0) if is_done else (1, 2)}
    assert (state.head, state.consolidated_seq) == expected[change]
    questions = {"append": ["old"], "commit": ["new"] if is_done else ["old"], "rollback": [] if is_done else ["old"]}
    assert [kept.question for kept in store.study_items(ADA)] == questions[change]
    assert len(store.audit(ADA)) == (1 if point == "rollback.after_commit" else 0)

    again = store.append(ADA, LATE)  # the retry doubles nothing
    assert [turn.seq for turn in again] == [4, 5]
    assert store.append(ADA, LATE) == again
    store.commit(ADA, draft(state.head, state.consolidated_seq + 1, 5, new_items=(item(),)))
    store.rollback(ADA, 1)
    store.close()
    assert broken_invariants(path) == []


def counters(store: SqlMemoryStore) -> UserState:
    state = store.state(ADA)
    assert state is not None
    return state
