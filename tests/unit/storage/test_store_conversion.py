"""A database in the clear is encrypted: nothing changes with the keys, and without them nothing is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text
from storage_samples import ADA, BEN, draft, item, say

from locas_storage import (
    CorruptPayload,
    EncryptionMismatch,
    FileKeyProvider,
    Lease,
    RevisionDraft,
    SqlMemoryStore,
    StoreUnavailable,
    TurnDraft,
    UserKey,
)
from locas_storage.sql.tables.schema import revision, search
from tests.postgres_server import PostgresServer

SECRET = "Zanzibar-4711"
FORMS = (SECRET.encode(), SECRET.lower().encode(), b"zanzibar")
CLEO = UserKey("other", "cleo")


@pytest.fixture
def clear(store_url: str) -> Iterator[SqlMemoryStore]:
    with closing(SqlMemoryStore(store_url)) as made:
        yield made


@pytest.fixture
def open_encrypted(store_url: str, key_file: Path) -> Iterator[Callable[..., SqlMemoryStore]]:
    made: list[SqlMemoryStore] = []

    def opened(**more: Any) -> SqlMemoryStore:
        made.append(SqlMemoryStore(store_url, key_provider=FileKeyProvider(key_file), **more))
        return made[-1]

    yield opened
    for one in made:
        one.close()


def live(store: SqlMemoryStore, key: UserKey = ADA) -> None:
    """Leave every kind of row there is: pruned, restored, equal, forgotten, retired, queued."""
    store.append(
        key,
        [TurnDraft("user", f"{number} is {SECRET}", idempotency_key=f"k{number}", session="s") for number in range(10)],
    )
    first = item(1, 1, f"What is {SECRET}?", SECRET)
    for number in range(4):  # the first payload is pruned by the fourth
        store.commit(
            key,
            draft(
                number,
                number + 1,
                number + 1,
                f"{SECRET} {number}".encode() * 20,
                new_items=(first,) if number == 0 else (),
            ),
        )
    store.rollback(key, 2)
    store.commit(key, draft(5, 3, 5, f"{SECRET} 3".encode() * 20, retired_items=(first.item_id,)))  # as the fourth had
    store.forget(key, [7])
    store.queue.enqueue(key, 9)


def told(store: SqlMemoryStore, key: UserKey) -> object:
    """What a user of a store sees; digests aside, which are keyed in one that encrypts."""
    revisions = [
        (one.number, one.parent, one.restores, one.from_seq, one.to_seq, one.state, one.payload_bytes, one.metrics)
        for one in store.revisions(key)
    ]
    payloads = [store.payload(key, one.number) for one in store.revisions(key) if one.has_payload]
    found = [(one.seq, one.score) for one in store.search(key, "zanzibar")]
    return (
        store.turns(key),
        revisions,
        payloads,
        store.study_items(key, with_retired=True),
        store.audit(key),
        found,
        store.queue.jobs(),
    )


def test_whoever_has_the_keys_sees_what_was_there(
    clear: SqlMemoryStore, open_encrypted: Callable[..., SqlMemoryStore]
) -> None:
    for key in (ADA, BEN, CLEO):
        live(clear, key)
    clear.erase(BEN)
    before = {key: told(clear, key) for key in (ADA, CLEO)}
    digests = {one.payload_sha256 for one in clear.revisions(ADA)} | {one.turns_sha256 for one in clear.revisions(ADA)}
    store = open_encrypted()
    assert store.encrypt().users == 2
    assert {key: told(store, key) for key in (ADA, CLEO)} == before
    assert store.verify().faults == ()
    assert not digests & (
        {one.payload_sha256 for one in store.revisions(ADA)} | {one.turns_sha256 for one in store.revisions(ADA)}
    )
    with store.database.read() as connection:
        assert connection.execute(select(search)).all() == []
    assert store.encrypt().users == 0
    # Life goes on: learning, restoring, forgetting.
    say(store, 2)
    store.commit(ADA, draft(6, 6, 12, b"more"))
    assert store.payload(ADA, store.rollback(ADA, 6).number) == f"{SECRET} 3".encode() * 20
    store.forget(ADA, [9])
    store.reinstate(BEN)
    assert store.turns(BEN) == []
    say(store, 1, BEN)
    assert store.verify().is_sound


def test_a_store_without_keys_is_refused_from_then_on(
    clear: SqlMemoryStore, open_encrypted: Callable[..., SqlMemoryStore]
) -> None:
    live(clear)
    (lease,) = clear.queue.claim("worker")
    assert isinstance(lease, Lease)
    open_encrypted().encrypt()
    late = RevisionDraft(6, "f", "c", "0", 0, 6, 9, b"learnt in the clear")
    for act in (
        lambda: clear.turns(ADA),
        lambda: clear.append(ADA, [TurnDraft("user", "x")]),
        lambda: clear.commit(ADA, late, lease=lease),
    ):
        with pytest.raises(EncryptionMismatch, match="without keys"):
            act()
    with pytest.raises(EncryptionMismatch, match="key_provider="):
        clear.encrypt()


def test_commit_that_began_in_the_clear_writes_nothing(
    store_url: str, open_encrypted: Callable[..., SqlMemoryStore]
) -> None:
    def encrypt(point: str) -> None:
        if point == "commit.file":
            other.encrypt()

    other = open_encrypted()
    with closing(SqlMemoryStore(store_url, fault_point=encrypt)) as clear:
        say(clear, 2)
        with pytest.raises(EncryptionMismatch):
            clear.commit(ADA, draft(0, 1, 2, SECRET.encode()))
    assert other.revisions(ADA) == []
    assert other.verify().is_sound


@pytest.mark.parametrize("point", ["encrypt.before_commit", "encrypt.after_commit"])
def test_interrupted_it_goes_on_where_it_was(
    clear: SqlMemoryStore, open_encrypted: Callable[..., SqlMemoryStore], tmp_path: Path, store_url: str, point: str
) -> None:
    folder = tmp_path / "payloads"
    with closing(SqlMemoryStore(store_url, files=str(folder), inline_bytes=10)) as filed:
        live(filed)
        live(filed, BEN)
        before = {key: told(filed, key) for key in (ADA, BEN)}
    met: list[str] = []

    def stop(name: str) -> None:
        met.append(name)
        if met.count(point) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_encrypted(files=str(folder), inline_bytes=10, fault_point=stop).encrypt()
    store = open_encrypted(files=str(folder), inline_bytes=10)
    assert store.encrypt().users == (1 if point == "encrypt.before_commit" else 0)
    assert {key: told(store, key) for key in (ADA, BEN)} == before
    assert store.verify().is_sound
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) == 8  # of each three in the clear, of which two revisions shared one
    assert [path for path in files if any(form in path.read_bytes() for form in FORMS)] == []


def test_no_clear_byte_is_left_in_the_file(tmp_path: Path, key_file: Path) -> None:
    path = tmp_path / "locas.db"
    with closing(SqlMemoryStore(f"sqlite:///{path}")) as clear:
        for number in range(20):
            live(clear, UserKey("default", f"user {number}"))

    def holding() -> list[str]:
        return [one.name for one in tmp_path.iterdir() if any(form in one.read_bytes() for form in FORMS)]

    assert holding() == ["locas.db"]
    with closing(SqlMemoryStore(f"sqlite:///{path}", key_provider=FileKeyProvider(key_file))) as store:
        done = store.encrypt()
        assert (done.users, done.is_overwritten) == (20, True)
        assert holding() == []
    assert holding() == []


def test_no_clear_byte_is_left_in_postgresqls_tables(
    postgres_server: PostgresServer, postgres_url: str, key_file: Path
) -> None:
    database = postgres_url.partition("@/")[2].partition("?")[0]
    number = postgres_server.psql(database, "SELECT oid FROM pg_database WHERE datname = current_database()")
    folder = postgres_server.folder / "data" / "base" / number

    def holding() -> list[str]:
        postgres_server.psql(database, "CHECKPOINT")
        tables = [one for one in folder.iterdir() if one.name[:1].isdigit()]  # the others are caches that come and go
        return [one.name for one in tables if any(form in one.read_bytes() for form in FORMS)]

    with closing(SqlMemoryStore(postgres_url)) as clear:
        live(clear)
    assert holding()
    with closing(SqlMemoryStore(postgres_url, key_provider=FileKeyProvider(key_file))) as store:
        assert not store.encrypt().is_overwritten  # its log still has them
        assert store.verify().is_sound
    assert holding() == []


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE lm_turn SET content_sha256 = :zeros WHERE subject_id = 'ben' AND seq = 1",
        "UPDATE lm_revision SET turns_sha256 = '' WHERE subject_id = 'ben' AND rev = 2",
        "UPDATE lm_subject SET next_rev = 40 WHERE subject_id = 'ben'",
    ],
)
def test_what_does_not_hold_is_not_made_to_look_sound(
    clear: SqlMemoryStore, open_encrypted: Callable[..., SqlMemoryStore], damage: str
) -> None:
    live(clear)
    live(clear, BEN)
    with clear.database.write() as connection:
        connection.execute(text(damage), {"zeros": bytes(32)} if ":zeros" in damage else {})
    with pytest.raises(CorruptPayload, match=r"the first is .*locas-agent verify"):
        open_encrypted().encrypt()
    assert clear.state(BEN) is not None
    assert len(clear.study_items(BEN)) == 0  # still readable in the clear
    assert not clear.verify().is_sound


def test_files_are_asked_for_before_anything_is_given_up(
    store_url: str, tmp_path: Path, open_encrypted: Callable[..., SqlMemoryStore]
) -> None:
    folder = tmp_path / "payloads"
    with closing(SqlMemoryStore(store_url, files=str(folder), inline_bytes=10)) as filed:
        live(filed)
        files = {path for path in folder.rglob("*") if path.is_file()}
        with closing(SqlMemoryStore(store_url)) as blind:
            for act in (
                lambda: blind.erase(ADA),
                lambda: blind.forget(ADA, [1]),
                lambda: blind.commit(ADA, draft(6, 6, 6, b"new")),
            ):
                with pytest.raises(StoreUnavailable, match="--files"):
                    act()
        with pytest.raises(CorruptPayload, match="files="):
            open_encrypted().encrypt()
        assert {path for path in folder.rglob("*") if path.is_file()} == files
        assert len(filed.revisions(ADA)) == 6
        with filed.database.read() as connection:
            assert set(connection.scalars(select(revision.c.state))) == {"live", "pruned"}
        filed.erase(ADA)
        assert [path for path in folder.rglob("*") if path.is_file()] == []
