"""What forgetting and erasing leave behind in a file: nothing. And that both hold against others at work."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from storage_samples import ADA, BEN, broken_invariants, draft, item, say

from locas_storage import LocasError, Receipt, RevisionConflict, SqlMemoryStore, TurnDraft, UserErased, UserKey
from locas_storage.sql.database import connections, engine

SECRET = "Zanzibar-Quetzalcoatl"  # no digits: four of them stand in a time or an id by chance


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "locas.db"


def tell_secret(store: SqlMemoryStore) -> None:
    """Say something secret in turn 3 of 8, learn it, and leave it in every table that holds content."""
    say(store, 2)
    store.append(ADA, [TurnDraft("user", f"my code is {SECRET} " * 50, name=SECRET, session=SECRET, trust="user")])
    say(store, 5)
    store.commit(ADA, draft(0, 1, 2, b"clean", new_items=(item(1, 2, "clean"),)))
    secret_item = item(3, 4, f"What is {SECRET}?", SECRET)
    store.commit(ADA, draft(1, 3, 4, SECRET.encode() * 9_000, new_items=(secret_item,), metrics={"note": SECRET}))
    store.commit(
        ADA,
        draft(2, 5, 6, SECRET.encode() * 100, new_items=(item(5, 6, SECRET),), retired_items=(secret_item.item_id,)),
    )


def places_of(path: Path, secret: str = SECRET) -> list[str]:
    """Return the files that hold a text in any form it is stored in."""
    wanted = [secret.encode(), secret.lower().encode(), *(word.lower().encode() for word in secret.split("-"))]
    return sorted(
        file.name
        for file in path.parent.iterdir()
        if file.is_file() and any(form in file.read_bytes() for form in wanted)
    )


@pytest.mark.parametrize(
    "act", [lambda store: store.forget(ADA, [3]), lambda store: store.erase(ADA)], ids=["forget", "erase"]
)
def test_no_byte_is_left_in_the_file_and_its_log(path: Path, act: Callable[[SqlMemoryStore], Receipt]) -> None:
    store = SqlMemoryStore(f"sqlite:///{path}")
    say(store, 3, BEN)
    tell_secret(store)
    assert places_of(path) == ["locas.db-wal"]  # it was there
    receipt = act(store)
    assert receipt.is_overwritten
    assert places_of(path) == []
    assert [turn.content for turn in store.turns(BEN)] == ["text 0", "text 1", "text 2"]
    store.close()
    assert places_of(path) == []
    assert broken_invariants(path) == []


def test_no_byte_is_left_of_what_lay_in_the_file_before(path: Path) -> None:
    store = SqlMemoryStore(f"sqlite:///{path}")
    tell_secret(store)
    store.close()
    assert places_of(path) == ["locas.db"]
    store = SqlMemoryStore(f"sqlite:///{path}")
    store.forget(ADA, [3])
    store.close()
    assert places_of(path) == []


def test_bytes_are_left_without_secure_delete(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The control of the two tests above: what they find gone is found where it is left.
    monkeypatch.setattr(
        connections,
        "_PRAGMAS",
        tuple(pragma.replace("secure_delete=ON", "secure_delete=OFF") for pragma in connections._PRAGMAS),
    )
    store = SqlMemoryStore(f"sqlite:///{path}")
    tell_secret(store)
    store.erase(ADA)
    store.close()
    assert places_of(path) == ["locas.db"]


def test_files_of_payloads_are_removed(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "payloads"
    store = SqlMemoryStore(f"sqlite:///{path}", files=str(folder), inline_bytes=10)
    tell_secret(store)

    def files() -> int:
        return sum(1 for file in folder.rglob("*") if file.is_file())

    assert files() == 2
    store.forget(ADA, [3])
    assert files() == 0
    store.commit(ADA, draft(4, 3, 6, b"a large payload"))
    assert files() == 1
    store.erase(ADA)
    assert files() == 0
    store.close()


def test_receipt_tells_when_a_reader_keeps_an_older_state(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_CHECKPOINT_SECONDS", 0)
    store = SqlMemoryStore(f"sqlite:///{path}")
    tell_secret(store)
    reader = SqlMemoryStore(f"sqlite:///{path}")
    reader.users()
    with reader.database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM lm_turn").scalar() == 8
        assert not store.erase(ADA).is_overwritten
        assert places_of(path) != []
    assert store.erase(ADA).is_overwritten
    assert places_of(path) == []
    reader.close()
    store.close()


def test_nothing_of_it_is_said(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    key = UserKey(SECRET, SECRET)
    store = SqlMemoryStore(f"sqlite:///{path}")
    store.append(key, [TurnDraft("user", SECRET, name=SECRET), TurnDraft("user", "other")], enqueue=1)
    said = [
        repr(store.queue.jobs()),
        repr(store.queue.claim("worker")),
        repr(store.forget(key, [1])),
        repr(store.audit(key)),
        repr(store.erase(key)),
    ]
    for act in (lambda: store.forget(key, [1]), lambda: store.append(key, [TurnDraft("user", SECRET)])):
        with pytest.raises(LocasError) as caught:
            act()
        said.append(str(caught.value))
    said += [record.getMessage() + repr(record.__dict__) for record in caplog.records]
    assert [line for line in said if SECRET in line] == []
    assert len([record for record in caplog.records if getattr(record, "action", None) in ("forget", "erase")]) == 2
    store.close()


def test_appends_and_commits_lose_the_race_against_erasure_or_come_before_it(store_url: str) -> None:
    stores = [SqlMemoryStore(store_url) for _ in range(5)]
    say(stores[0], 4)
    refused: list[str] = []
    errors: list[BaseException] = []
    barrier = threading.Barrier(5)

    def work(store: SqlMemoryStore, worker: int) -> None:
        barrier.wait()
        try:
            for number in range(20):
                if worker == 0 and number == 5:
                    store.erase(ADA)
                elif worker:
                    store.append(ADA, [TurnDraft("user", f"{worker} {number}")], enqueue=4)
                    state = store.state(ADA)
                    if state is not None and worker == 1:
                        store.commit(
                            ADA,
                            draft(
                                state.head,
                                state.consolidated_seq + 1,
                                state.next_seq - 1,
                                os.urandom(20),
                                fence=state.fence,
                            ),
                        )
        except LocasError as error:
            refused.append(type(error).__name__)
        except BaseException as error:  # noqa: BLE001  a thread must not die unseen
            errors.append(error)

    threads = [threading.Thread(target=work, args=(store, worker)) for worker, store in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert UserErased.__name__ in refused
    assert set(refused) <= {"UserErased", "RevisionConflict"}
    assert (stores[0].turns(ADA), stores[0].queue.jobs(), stores[0].revisions(ADA), stores[0].users()) == (
        [],
        [],
        [],
        [],
    )
    for store in stores:
        store.close()


def test_commit_begun_before_a_forgetting_is_refused_wherever_they_meet(store_url: str) -> None:
    """The forgetting comes between the reading of the turns and each step of the commit.

    Either way no revision has seen the turn.
    """
    for point in ("commit.file", "commit.before_commit"):
        user = UserKey("default", point)
        forgetful = SqlMemoryStore(store_url)
        said: list[threading.Thread] = []

        def meet(
            reached: str,
            point: str = point,
            user: UserKey = user,
            other: SqlMemoryStore = forgetful,
            said: list[threading.Thread] = said,
        ) -> None:
            if reached == point and not said:
                said.append(threading.Thread(target=lambda: other.forget(user, [1])))
                said[0].start()
                said[0].join(timeout=0.5)  # it waits for the commit, or it is done

        store = SqlMemoryStore(store_url, fault_point=meet)
        say(store, 2, user)
        state = store.state(user)
        assert state is not None
        with suppress(RevisionConflict):
            store.commit(user, draft(0, 1, 2, b"saw it", fence=state.fence))
        said[0].join()
        assert [revision.state for revision in store.revisions(user) if revision.has_payload] == []
        assert [turn.seq for turn in store.turns(user)] == [2]
        store.close()
        forgetful.close()
