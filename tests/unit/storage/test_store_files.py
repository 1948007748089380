"""Payloads too large for the database.

In files, whole or absent, given up with their revision, collected after a crash.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from storage_samples import ADA, BEN, broken_invariants, draft, say

from locas_storage import (
    CorruptPayload,
    InvalidRevision,
    RevisionConflict,
    SqlMemoryStore,
    StorageFull,
    StoreUnavailable,
    UserKey,
    payload_files,
)

Open = Callable[..., SqlMemoryStore]
LARGE = b"large payload " * 100


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "payloads"


@pytest.fixture
def open_(url: str, place: Path) -> Open:
    def opened(**more: Any) -> SqlMemoryStore:
        settings: dict[str, Any] = {"files": str(place), "inline_bytes": 100, **more}
        return SqlMemoryStore(url, **settings)

    return opened


def names(place: Path) -> list[str]:
    return sorted(path.name for path in place.rglob("*") if path.is_file())


def learn(store: SqlMemoryStore, count: int, key: UserKey = ADA) -> None:
    """Say and learn one turn after the other, each into a large payload of its own."""
    for _ in range(count):
        say(store, 1, key)
        state = store.state(key)
        assert state is not None
        store.commit(key, draft(state.head, state.turns, state.turns, LARGE + str(state.turns).encode()))


def test_large_payload_lies_in_a_file_and_a_small_one_does_not(open_: Open, place: Path, tmp_path: Path) -> None:
    store = open_()
    say(store, 2)
    store.commit(ADA, draft(0, 1, 1, b"small"))
    assert names(place) == []
    saved = store.commit(ADA, draft(1, 2, 2, LARGE))
    (path,) = (path for path in place.rglob("*") if path.is_file())
    assert path.name == saved.payload_sha256
    assert path.read_bytes() == LARGE
    assert path.stat().st_mode & 0o077 == path.parent.stat().st_mode & 0o077 == 0
    assert b"large payload" not in (tmp_path / "locas.db").read_bytes() + (tmp_path / "locas.db-wal").read_bytes()
    assert (store.payload(ADA, 1), store.payload(ADA, 2)) == (b"small", LARGE)
    store.close()
    without = SqlMemoryStore(f"sqlite:///{tmp_path / 'locas.db'}")
    assert without.payload(ADA, 1) == b"small"
    with pytest.raises(StoreUnavailable, match="files="):
        without.payload(ADA, 2)
    without.close()


def test_equal_payloads_of_two_users_are_two_files(open_: Open, place: Path) -> None:
    store = open_()
    for key in (ADA, BEN):
        learn(store, 1, key)
    assert len(names(place)) == 2
    assert len(set(names(place))) == 1
    shown = [str(path.relative_to(place)) for path in place.rglob("*")]
    assert not any("ada" in one or "ben" in one for one in shown if len(one) < 64)
    store.close()


@pytest.mark.parametrize("damage", ["flip", "cut", "grow", "empty", "gone"])
def test_damaged_file_is_found(open_: Open, place: Path, damage: str) -> None:
    store = open_()
    learn(store, 1)
    (path,) = (path for path in place.rglob("*") if path.is_file())
    data = path.read_bytes()
    damaged = {"flip": data[:5] + b"\xff" + data[6:], "cut": data[:-1], "grow": data + b"x", "empty": b""}
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(damaged[damage])
    with pytest.raises(CorruptPayload):
        store.payload(ADA, 1)
    store.close()


def test_pruned_payload_leaves_no_file(open_: Open, place: Path) -> None:
    store = open_(keep_payloads=2)
    learn(store, 4)
    kept = [revision.payload_sha256 for revision in store.revisions(ADA) if revision.has_payload]
    assert names(place) == sorted(str(one) for one in kept)
    assert len(kept) == 2
    store.close()


def test_pruned_payload_leaves_no_row(url: str, tmp_path: Path) -> None:
    store = SqlMemoryStore(url, keep_payloads=1)
    for number in range(3):
        say(store, 1)
        store.commit(ADA, draft(number, number + 1, number + 1))
    with store.database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM lm_blob").scalar() == 1
    store.close()
    assert broken_invariants(tmp_path / "locas.db") == []
    for file in (tmp_path / "locas.db", tmp_path / "locas.db-wal"):
        assert not file.exists() or b"payload after 0" not in file.read_bytes()


def test_no_payload_at_all_cannot_be_kept(url: str) -> None:
    with pytest.raises(InvalidRevision):
        SqlMemoryStore(url, keep_payloads=0)


@pytest.mark.parametrize("point", ["commit.file", "commit.payload", "commit.before_commit"])
def test_file_of_a_commit_that_broke_off_is_collected(open_: Open, place: Path, point: str) -> None:
    class Crash(BaseException):
        pass

    def crash(reached: str) -> None:
        if reached == point:
            raise Crash

    store = open_()
    learn(store, 1)
    broken = open_(fault_point=crash)
    say(broken, 1)
    with pytest.raises(Crash):
        broken.commit(ADA, draft(1, 2, 2, LARGE))
    left = place / ("0" * 64) / "half.part"
    left.parent.mkdir()
    left.write_bytes(b"of a user who is gone")
    assert len(names(place)) == 3
    assert store.collect() == 0  # too young: it may belong to a commit that is under way
    assert store.collect(grace_seconds=-5) == 2
    assert len(names(place)) == 1
    assert store.payload(ADA, 1).startswith(LARGE)
    assert store.commit(ADA, draft(1, 2, 2, LARGE)).number == 2
    assert store.collect(grace_seconds=-5) == 0
    store.close()
    broken.close()


def test_refused_commit_leaves_no_file_but_those_that_are_named(open_: Open, place: Path) -> None:
    store = open_()
    learn(store, 2)
    kept = names(place)
    for payload in (LARGE, store.payload(ADA, 1)):
        with pytest.raises(RevisionConflict):
            store.commit(ADA, draft(0, 1, 2, payload))
        assert names(place) == kept
    assert store.payload(ADA, 1).startswith(LARGE)
    assert store.collect(grace_seconds=-5) == 0
    store.close()


def test_file_that_goes_before_its_row_is_written_is_noticed(open_: Open, place: Path) -> None:
    def lose(reached: str) -> None:
        if reached == "commit.file":
            for path in place.rglob("*"):
                if path.is_file():
                    path.unlink()

    store = open_(fault_point=lose)
    say(store, 1)
    with pytest.raises(StoreUnavailable, match="commit again"):
        store.commit(ADA, draft(0, 1, 1, LARGE))
    assert store.revisions(ADA) == []
    store.close()


def test_full_disk_leaves_neither_file_nor_revision(open_: Open, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_()
    say(store, 1)
    with monkeypatch.context() as patch:
        patch.setattr(payload_files.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.raises(StorageFull):
            store.commit(ADA, draft(0, 1, 1, LARGE))
    assert names(place) == []
    assert store.revisions(ADA) == []
    assert store.commit(ADA, draft(0, 1, 1, LARGE)).number == 1
    store.close()


def test_file_is_forced_to_the_disk_before_it_has_its_name(open_: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(
            payload_files.os, name, lambda *given, name=name, real=real: (done.append(name), real(*given))[1]
        )
    store = open_()
    learn(store, 1)
    store.close()
    assert done == ["fsync", "replace", "fsync", "fsync"]  # the file; its name; the two folders


def test_object_store_keeps_payloads_too(url: str) -> None:
    store = SqlMemoryStore(url, files="memory://payloads", inline_bytes=10, keep_payloads=1)
    learn(store, 3)
    assert store.payload(ADA, 3) == LARGE + b"3"
    assert store.collect(grace_seconds=-5) == 0
    store.close()


def test_place_that_nothing_can_write_to_is_named_as_such(url: str) -> None:
    with pytest.raises(StoreUnavailable):
        SqlMemoryStore(url, files="nosuch://place")
    store = SqlMemoryStore(url, files="/proc/nosuch", inline_bytes=1)
    say(store, 1)
    with pytest.raises(StoreUnavailable):
        store.commit(ADA, draft(0, 1, 1, LARGE))
    store.close()
